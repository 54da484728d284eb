use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};

use proptest::prelude::*;

use super::*;
use crate::{BusDevice, Effect, Interrupt};

const DATA: u64 = 0;
const INTERRUPT_ENABLE: u64 = 1;
const MODEM_CONTROL: u64 = 4;
const LINE_STATUS: u64 = 5;
const SCRATCH: u64 = 7;

impl SerialOutput for Sender<u8> {
    fn byte(&mut self, byte: u8) {
        // Some tests read nothing of it.
        let _ = self.send(byte);
    }
}

/// Counts, or refuses.
#[derive(Default)]
struct Line {
    raised: AtomicU64,
    is_broken: bool,
}

impl Interrupt for Line {
    fn trigger(&self) -> io::Result<()> {
        if self.is_broken {
            return Err(io::Error::other("broken"));
        }
        self.raised.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn read<O: SerialOutput, I: Interrupt>(port: &mut SerialConsole<O, I>, register: u64) -> u8 {
    let mut data = [0xff];
    port.read(register, &mut data);
    data[0]
}

#[test]
fn what_the_guest_sends_arrives_in_order() {
    let (output, sent) = channel();
    let mut port = SerialConsole::new(output);
    for byte in b"READY\n" {
        assert_eq!(port.write(DATA, &[*byte]), Effect::Continue);
    }
    assert_eq!(sent.try_iter().collect::<Vec<_>>(), b"READY\n");
    assert_eq!(port.metrics().counts().sent_bytes, 6);
}

#[test]
fn the_transmitter_is_always_ready() {
    let mut port = SerialConsole::new(channel().0);
    assert_eq!(read(&mut port, LINE_STATUS) & 0x60, 0x60);
}

#[test]
fn a_wide_access_touches_one_register_only() {
    let mut port = SerialConsole::new(channel().0);
    port.write(SCRATCH, &[0x5a, 0x11, 0x22, 0x33]);
    let mut data = [0xff; 4];
    port.read(SCRATCH, &mut data);
    assert_eq!(data, [0x5a, 0xff, 0xff, 0xff]);
}

#[test]
fn what_comes_in_raises_the_interrupt_if_the_guest_wants_it() {
    let line = Arc::new(Line::default());
    let mut port = SerialConsole::with_interrupt(channel().0, Arc::clone(&line));
    assert_eq!(port.receive(b"a"), Ok(1));
    assert_eq!(line.raised.load(Ordering::Relaxed), 0);
    assert_eq!(read(&mut port, DATA), b'a');
    port.write(INTERRUPT_ENABLE, &[1]);
    assert_eq!(port.receive(b"bc"), Ok(2));
    assert_eq!(line.raised.load(Ordering::Relaxed), 1);
    assert_eq!((read(&mut port, DATA), read(&mut port, DATA)), (b'b', b'c'));
    let counts = port.metrics().counts();
    assert_eq!((counts.received_bytes, counts.reads, counts.failed_interrupts), (3, 3, 0));
}

#[test]
fn an_interrupt_that_fails_is_counted_and_costs_no_byte() {
    let line = Line { is_broken: true, ..Line::default() };
    let mut port = SerialConsole::with_interrupt(channel().0, line);
    port.write(INTERRUPT_ENABLE, &[1]);
    assert_eq!(port.receive(b"a"), Ok(1));
    assert_eq!(port.metrics().counts().failed_interrupts, 1);
    assert_eq!(read(&mut port, DATA), b'a');
}

#[test]
fn the_receiver_takes_what_it_has_room_for() {
    let mut port = SerialConsole::new(channel().0);
    assert_eq!(port.receive(&[7; 100]), Ok(64));
    assert_eq!(port.receive(&[8]), Err(ReceiveError::Full));
    assert_eq!(read(&mut port, DATA), 7);
    assert_eq!(port.receive(&[8; 2]), Ok(1));
    assert_eq!(port.metrics().counts().received_bytes, 65);
    port.write(MODEM_CONTROL, &[0x10]);
    assert_eq!(read(&mut port, DATA), 7);
    assert_eq!(port.receive(&[9]), Ok(0));
}

#[test]
fn a_restored_port_goes_on_where_it_was() {
    let mut port = SerialConsole::new(channel().0);
    port.write(SCRATCH, &[0x5a]);
    port.write(INTERRUPT_ENABLE, &[1]);
    port.receive(b"xy").unwrap();
    let json = serde_json::to_string(&port.state()).unwrap();
    let state: SerialState = serde_json::from_str(&json).unwrap();
    assert_eq!(state, port.state());
    let line = Arc::new(Line::default());
    let mut port = SerialConsole::restore(state, channel().0, Arc::clone(&line)).unwrap();
    assert_eq!(line.raised.load(Ordering::Relaxed), 1);
    assert_eq!([SCRATCH, DATA, DATA].map(|register| read(&mut port, register)), [0x5a, b'x', b'y']);
}

#[test]
fn a_state_that_no_port_can_have_is_refused() {
    let mut state = SerialConsole::new(channel().0).state();
    state.received = vec![0; 65];
    let result = SerialConsole::restore(state, channel().0, crate::NoInterrupt);
    assert_eq!(result.err(), Some(RestoreSerialError::TooMuchInput));
}

proptest! {
    #[test]
    fn nothing_that_a_guest_does_makes_it_panic_or_keep_more_than_it_holds(
        accesses in prop::collection::vec(
            (
                prop_oneof![0_u64..9, any::<u64>()],
                prop::collection::vec(any::<u8>(), 0..17),
                any::<bool>(),
            ),
            0..300,
        ),
    ) {
        let mut port = SerialConsole::new(channel().0);
        for (offset, mut data, is_write) in accesses {
            if is_write {
                prop_assert_eq!(port.write(offset, &data), Effect::Continue);
            } else {
                port.read(offset, &mut data);
            }
            prop_assert!(port.state().received.len() <= 64);
        }
    }
}
