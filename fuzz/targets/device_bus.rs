//! What a hostile guest does at its ports and at addresses without memory: each access reaches the device
//! where its first byte lies, or none, and no device panics, keeps more than it holds, or lies about it.

#![no_main]

use std::io;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use pagefold_devices::legacy::serial::{ReceiveError, SerialState};
use pagefold_devices::{
    BusDevice, Buses, ControlWord, Effect, InsertError, Interrupt, Paravirt, ParavirtPorts,
    SerialConsole, SerialOutput, SharedDevice, Unclaimed,
};

/// What the receiver of a serial port holds.
const FIFO_BYTES: usize = 64;
const REGISTERS: ParavirtPorts = ParavirtPorts { sleep: 0, control: 4, exit: 8 };

fuzz_target!(|data: &[u8]| {
    let mut machine = Machine::default();
    let mut input = Unstructured::new(data);
    while !input.is_empty() && machine.step(&mut input).is_ok() {}
    assert!(format!("{:?}", machine.buses).contains("unclaimed"));
});

/// The buses, and what they should know.
#[derive(Default)]
struct Machine {
    buses: Buses,
    ports: Side,
    mmio: Side,
    /// What has reached any device since it was last looked at.
    log: Log,
}

/// A bus as a plain list.
#[derive(Default)]
struct Side {
    places: Vec<Place>,
    unclaimed: Unclaimed,
}

struct Place {
    name: String,
    range: RangeInclusive<u64>,
    device: Device,
}

/// A device as its owner has it.
#[derive(Clone)]
enum Device {
    Plain,
    Serial(SerialOwner),
    Block { control: ControlWord, last_read: Arc<Mutex<u32>> },
}

/// The host's end of a serial port.
#[derive(Clone)]
struct SerialOwner {
    port: Arc<Mutex<Logged<SerialConsole<Output, Line>>>>,
    /// What the guest has sent by its last access.
    output: Output,
    line: Line,
}

type Log = Arc<Mutex<Vec<(String, u64, Access)>>>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Access {
    Read(usize),
    Write(Vec<u8>),
}

impl Machine {
    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let is_port = input.arbitrary()?;
        let side = if is_port { &self.ports } else { &self.mmio };
        match input.int_in_range(0..=15)? {
            0..=2 => self.insert(is_port, input)?,
            3..=8 => {
                let at = side.number(is_port, input)?;
                let len_bytes = input.int_in_range(0..=16)?;
                self.read(is_port, at, len_bytes);
            }
            9..=13 => {
                let at = side.number(is_port, input)?;
                let len_bytes = input.int_in_range(0..=16)?;
                self.write(is_port, at, input.bytes(len_bytes)?);
            }
            _ if side.places.is_empty() => {}
            _ => input.choose(&side.places)?.device.event(input)?,
        }
        for (bus, side) in
            [(self.buses.ports.unclaimed(), &self.ports), (self.buses.mmio.unclaimed(), &self.mmio)]
        {
            assert_eq!(bus, side.unclaimed, "accesses that no device answered");
        }
        Ok(())
    }

    fn insert(&mut self, is_port: bool, input: &mut Unstructured<'_>) -> Result<()> {
        let side = if is_port { &mut self.ports } else { &mut self.mmio };
        let first = side.number(is_port, input)?;
        let last = match input.arbitrary::<u8>()? {
            255 => side.number(is_port, input)?,
            more => first.saturating_add(more.into()).min(end(is_port)),
        };
        let name = format!("device {}", side.places.len());
        let (device, shared) = Device::new(&name, &self.log, input)?;
        let result = if is_port {
            self.buses.ports.insert(&name, port(first)..=port(last), shared)
        } else {
            self.buses.mmio.insert(&name, first..=last, shared)
        };
        let range = first..=last;
        let is_in_the_way = |place: &Place| {
            !range.is_empty() && first <= *place.range.end() && *place.range.start() <= last
        };
        match result {
            Ok(()) => {
                assert!(!range.is_empty(), "an empty range was taken");
                assert!(!side.places.iter().any(is_in_the_way), "{name} overlaps");
                side.places.push(Place { name, range, device });
            }
            Err(error @ InsertError::Empty(_)) => {
                assert!(range.is_empty(), "{error}");
            }
            Err(error) => {
                let InsertError::Overlap { wanted, taken } = &error else { panic!("{error}") };
                assert_eq!((&wanted.name, &wanted.range), (&name, &range), "{error}");
                let found = side.places.iter().find(|place| place.name == taken.name);
                let found = found.unwrap_or_else(|| panic!("nobody is there: {error}"));
                assert!(found.range == taken.range && is_in_the_way(found), "{error}");
            }
        }
        Ok(())
    }

    fn read(&mut self, is_port: bool, at: u64, len_bytes: usize) {
        // What was there before is not what is read.
        let mut data = vec![0x5a; len_bytes];
        if is_port {
            self.buses.ports.read(port(at), &mut data);
        } else {
            self.buses.mmio.read(at, &mut data);
        }
        let Some((offset, device)) = self.reached(is_port, at, Access::Read(len_bytes)) else {
            assert!(data.iter().all(|&byte| byte == 0xff), "{data:x?} where nothing is");
            self.side(is_port).unclaimed.reads += 1;
            return;
        };
        // What a device leaves alone reads as ones.
        let answered = match &device {
            Device::Plain => {
                let answered = len_bytes.min(2);
                assert!(data[..answered].iter().all(|&byte| byte == offset as u8), "{data:x?}");
                answered
            }
            Device::Serial(serial) => {
                serial.check(&[]);
                usize::from(offset <= 0xff)
            }
            Device::Block { control, last_read } if offset == u64::from(REGISTERS.control) => {
                let answered = len_bytes.min(4);
                assert_eq!(data[..answered], control.get().to_le_bytes()[..answered]);
                *lock(last_read) = control.get();
                answered
            }
            Device::Block { .. } => 0,
        };
        assert!(data.iter().skip(answered).all(|&byte| byte == 0xff), "{data:x?} at {offset}");
    }

    fn write(&mut self, is_port: bool, at: u64, data: &[u8]) {
        let before = self.side(is_port).find(at).and_then(|(_, place)| match &place.device {
            Device::Serial(serial) => Some(serial.state()),
            _ => None,
        });
        let effect = if is_port {
            self.buses.ports.write(port(at), data)
        } else {
            self.buses.mmio.write(at, data)
        };
        let Some((offset, device)) = self.reached(is_port, at, Access::Write(data.to_vec())) else {
            assert_eq!(effect, Effect::Continue);
            self.side(is_port).unclaimed.writes += 1;
            return;
        };
        let expected = match &device {
            Device::Plain => plain_effect(offset, data),
            Device::Serial(serial) => {
                let before = before.expect("the port was there");
                let is_sent = offset == 0 && !is_divisor(&before) && !is_loopback(&before);
                serial.check(if is_sent { &data[..data.len().min(1)] } else { &[] });
                Effect::Continue
            }
            Device::Block { control, last_read } => {
                let mut value = [0; 4];
                value.iter_mut().zip(data).for_each(|(value, byte)| *value = *byte);
                let value = u32::from_le_bytes(value);
                if offset == u64::from(REGISTERS.exit) {
                    Effect::Exit(value)
                } else if offset == u64::from(REGISTERS.sleep) && control.get() == *lock(last_read)
                {
                    Effect::Sleep(Duration::from_micros(value.into()))
                } else {
                    Effect::Continue
                }
            }
        };
        assert_eq!(effect, expected, "at {offset}");
    }

    /// The device that `access` at `at` has to reach with its offset there, having seen that it has, and
    /// no other.
    fn reached(&mut self, is_port: bool, at: u64, access: Access) -> Option<(u64, Device)> {
        let log = std::mem::take(&mut *lock(&self.log));
        let found = self.side(is_port).find(at);
        let expected = found.map(|(offset, place)| (place.name.clone(), offset, access));
        let expected: Vec<_> = expected.into_iter().collect();
        assert_eq!(log, expected, "an access at {at:#x} went elsewhere");
        found.map(|(offset, place)| (offset, place.device.clone()))
    }

    fn side(&mut self, is_port: bool) -> &mut Side {
        if is_port { &mut self.ports } else { &mut self.mmio }
    }
}

impl Side {
    /// Where a number is, and how far from the beginning.
    fn find(&self, at: u64) -> Option<(u64, &Place)> {
        let place = self.places.iter().find(|place| place.range.contains(&at))?;
        Some((at - place.range.start(), place))
    }

    /// A port or address: about the ends of what is there, or any.
    fn number(&self, is_port: bool, input: &mut Unstructured<'_>) -> Result<u64> {
        let near = input.int_in_range(0..=9)?;
        let number = match input.int_in_range(0..=7)? {
            0 => input.arbitrary()?,
            1 => near,
            2 => end(is_port) - near,
            _ if self.places.is_empty() => 0x3f8 + near,
            3..=4 => input.choose(&self.places)?.range.end().wrapping_add(near).wrapping_sub(4),
            _ => input.choose(&self.places)?.range.start().wrapping_add(near),
        };
        Ok(number & end(is_port))
    }
}

/// The last port, or the last address.
fn end(is_port: bool) -> u64 {
    if is_port { u16::MAX.into() } else { u64::MAX }
}

fn port(number: u64) -> u16 {
    number.try_into().expect("a port")
}

impl Device {
    fn new(name: &str, log: &Log, input: &mut Unstructured<'_>) -> Result<(Self, SharedDevice)> {
        Ok(match input.int_in_range(0..=3)? {
            0..=1 => (Self::Plain, Logged::new(name, log, Plain)),
            2 => {
                let (output, line) = (Output::default(), Line { is_broken: input.arbitrary()? });
                let serial = SerialConsole::with_interrupt(output.clone(), line);
                let port = Logged::new(name, log, serial);
                (Self::Serial(SerialOwner { port: Arc::clone(&port), output, line }), port)
            }
            _ => {
                let control = ControlWord::new(input.arbitrary()?);
                let last_read = Arc::new(Mutex::new(control.get()));
                let block = Logged::new(name, log, Paravirt::new(REGISTERS, control.clone()));
                (Self::Block { control, last_read }, block)
            }
        })
    }

    /// Something comes from the host's side.
    fn event(&self, input: &mut Unstructured<'_>) -> Result<()> {
        match self {
            Self::Plain => {}
            Self::Serial(serial) => match input.int_in_range(0..=3)? {
                0..=1 => {
                    let len_bytes = input.int_in_range(0..=70)?;
                    serial.receive(input.bytes(len_bytes)?);
                }
                2 => serial.restore(serial.state()),
                _ => serial.restore(state(input)?),
            },
            Self::Block { control, .. } => control.set(input.arbitrary()?),
        }
        Ok(())
    }
}

impl SerialOwner {
    fn state(&self) -> SerialState {
        lock(&self.port).inner.state()
    }

    /// After an access, which has sent `sent`.
    fn check(&self, sent: &[u8]) {
        assert_eq!(std::mem::take(&mut *lock(&self.output.0)), sent, "sent");
        assert!(self.state().received.len() <= FIFO_BYTES, "received");
        let counts = lock(&self.port).inner.metrics().counts();
        assert!(self.line.is_broken || counts.failed_interrupts == 0, "{counts:?}");
    }

    fn receive(&self, bytes: &[u8]) {
        let before = self.state();
        let room = FIFO_BYTES - before.received.len();
        let expected = if is_loopback(&before) || bytes.is_empty() {
            Ok(0)
        } else if room == 0 {
            Err(ReceiveError::Full)
        } else {
            Ok(room.min(bytes.len()))
        };
        assert_eq!(lock(&self.port).inner.receive(bytes), expected);
        let received = [&before.received, &bytes[..expected.unwrap_or(0)]].concat();
        assert_eq!(self.state().received, received);
        self.check(&[]);
    }

    /// Puts a port in its place that was written out in `state`, if one can be.
    fn restore(&self, state: SerialState) {
        let json = serde_json::to_vec(&state).expect("a state is JSON");
        let read = serde_json::from_slice(&json).expect("what was written is understood");
        let is_too_much = state.received.len() > FIFO_BYTES;
        match SerialConsole::restore(read, self.output.clone(), self.line) {
            Ok(serial) => {
                assert!(!is_too_much, "a port holds more than it has room for");
                assert_eq!(serial.state(), state);
                lock(&self.port).inner = serial;
            }
            Err(error) => assert!(is_too_much, "{error}"),
        }
        self.check(&[]);
    }
}

/// A state that nobody has checked.
fn state(input: &mut Unstructured<'_>) -> Result<SerialState> {
    let len_bytes = input.int_in_range(0..=70)?;
    Ok(SerialState {
        received: input.bytes(len_bytes)?.to_vec(),
        baud_divisor_low: input.arbitrary()?,
        baud_divisor_high: input.arbitrary()?,
        interrupt_enable: input.arbitrary()?,
        interrupt_identification: input.arbitrary()?,
        line_control: input.arbitrary()?,
        line_status: input.arbitrary()?,
        modem_control: input.arbitrary()?,
        modem_status: input.arbitrary()?,
        scratch: input.arbitrary()?,
    })
}

/// Whether the first two registers are the divisor's (DLAB).
fn is_divisor(state: &SerialState) -> bool {
    state.line_control & 0x80 != 0
}

/// Whether what is sent comes in again.
fn is_loopback(state: &SerialState) -> bool {
    state.modem_control & 0x10 != 0
}

/// A device that tells what reaches it.
struct Logged<D> {
    name: String,
    log: Log,
    inner: D,
}

impl<D> Logged<D> {
    fn new(name: &str, log: &Log, inner: D) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { name: name.to_owned(), log: Arc::clone(log), inner }))
    }
}

impl<D: BusDevice> BusDevice for Logged<D> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        assert!(data.iter().all(|&byte| byte == 0xff), "{data:x?} before the device answers");
        lock(&self.log).push((self.name.clone(), offset, Access::Read(data.len())));
        self.inner.read(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        lock(&self.log).push((self.name.clone(), offset, Access::Write(data.to_vec())));
        self.inner.write(offset, data)
    }
}

/// Answers two bytes at most, and asks for whatever is written.
struct Plain;

impl BusDevice for Plain {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.iter_mut().take(2).for_each(|byte| *byte = offset as u8);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        plain_effect(offset, data)
    }
}

fn plain_effect(offset: u64, data: &[u8]) -> Effect {
    match data.first() {
        Some(0..=99) => Effect::Sleep(Duration::from_micros(offset)),
        Some(&code @ 100..=199) => Effect::Exit(code.into()),
        _ => Effect::Continue,
    }
}

/// Bytes that a guest has sent.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl SerialOutput for Output {
    fn byte(&mut self, byte: u8) {
        lock(&self.0).push(byte);
    }
}

#[derive(Clone, Copy)]
struct Line {
    is_broken: bool,
}

impl Interrupt for Line {
    fn trigger(&self) -> io::Result<()> {
        if self.is_broken { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing has panicked")
}
