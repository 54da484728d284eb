use super::*;

/// Reads as its tag and sleeps for the offset written to.
struct Tagged(u8);

impl BusDevice for Tagged {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(self.0);
    }

    fn write(&mut self, offset: u64, _data: &[u8]) -> Effect {
        Effect::Sleep(Duration::from_secs(offset))
    }
}

fn tagged(tag: u8) -> SharedDevice {
    Arc::new(Mutex::new(Tagged(tag)))
}

fn occupied(name: &str, first: u64, last: u64) -> Occupied {
    Occupied { name: name.to_owned(), range: first..=last }
}

fn read(bus: &PortBus, port: u16) -> u8 {
    let mut data = [0];
    bus.read(port, &mut data);
    data[0]
}

#[test]
fn each_port_of_a_range_reaches_its_device_and_no_other_does() {
    let mut bus = PortBus::new();
    bus.insert("a", 0x10..=0x17, tagged(1)).unwrap();
    bus.insert("b", 0x18..=0x18, tagged(2)).unwrap();
    bus.insert("c", 0xffff..=0xffff, tagged(3)).unwrap();
    assert_eq!(
        [0x0f, 0x10, 0x17, 0x18, 0x19, 0xffff].map(|port| read(&bus, port)),
        [0xff, 1, 1, 2, 0xff, 3]
    );
    assert_eq!(bus.write(0x12, &[0]), Effect::Sleep(Duration::from_secs(2)));
    assert_eq!(bus.write(0x20, &[0]), Effect::Continue);
}

#[test]
fn an_address_reaches_its_device_up_to_the_last_there_is() {
    let mut bus = MmioBus::new();
    bus.insert("low", 0xd000_0000..=0xd000_0fff, tagged(1)).unwrap();
    bus.insert("top", u64::MAX - 7..=u64::MAX, tagged(2)).unwrap();
    let read = |address| {
        let mut data = [0; 8];
        bus.read(address, &mut data);
        data
    };
    assert_eq!(read(0xd000_0fff), [1; 8]);
    assert_eq!(read(0xd000_1000), [0xff; 8]);
    assert_eq!(read(u64::MAX), [2; 8]);
    assert_eq!(bus.write(u64::MAX, &[0; 8]), Effect::Sleep(Duration::from_secs(7)));
}

#[test]
fn unclaimed_reads_are_all_ones_at_every_width() {
    let bus = PortBus::new();
    let mut data = [0; 4];
    bus.read(0x80, &mut data);
    assert_eq!(data, [0xff; 4]);
}

#[test]
fn what_no_device_answers_is_counted_and_nothing_else() {
    let mut buses = Buses::default();
    buses.ports.insert("a", 0x10..=0x17, tagged(1)).unwrap();
    buses.mmio.insert("b", 0x1000..=0x1fff, tagged(2)).unwrap();
    let mut data = [0; 4];
    for port in [0x10, 0x18, 0x19] {
        buses.ports.read(port, &mut data);
    }
    assert_eq!(buses.ports.write(0x20, &data), Effect::Continue);
    buses.mmio.read(0x2000, &mut data);
    buses.mmio.write(0x1000, &data);
    assert_eq!(buses.ports.unclaimed(), Unclaimed { reads: 2, writes: 1 });
    assert_eq!(buses.mmio.unclaimed(), Unclaimed { reads: 1, writes: 0 });
}

#[test]
fn an_overlap_is_refused_wherever_it_lies() {
    let mut bus = PortBus::new();
    bus.insert("serial", 0x10..=0x17, tagged(1)).unwrap();
    for (first, last) in [(0x10, 0x17), (0x0, 0x10), (0x17, 0x20), (0x12, 0x13), (0x0, 0xffff)] {
        let error = bus.insert("other", first..=last, tagged(2)).unwrap_err();
        let wanted = occupied("other", first.into(), last.into());
        assert_eq!(error, InsertError::Overlap { wanted, taken: occupied("serial", 0x10, 0x17) });
    }
    assert_eq!(
        bus.insert("other", 0x17..=0x20, tagged(2)).unwrap_err().to_string(),
        "cannot put other at 0x17..=0x20 on the bus: it overlaps serial at 0x10..=0x17"
    );
    bus.insert("other", 0x0..=0xf, tagged(2)).unwrap();
    bus.insert("other", 0x18..=0x20, tagged(2)).unwrap();
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "the empty range is the point")]
fn an_empty_range_is_refused() {
    let error = PortBus::new().insert("a", 5..=4, tagged(1)).unwrap_err();
    assert_eq!(error, InsertError::Empty(occupied("a", 5, 4)));
    assert_eq!(error.to_string(), "cannot put a at 0x5..=0x4 on the bus: the range is empty");
}

#[test]
fn a_bus_shows_who_is_where() {
    let mut bus = MmioBus::new();
    bus.insert("serial", 0x10..=0x17, tagged(1)).unwrap();
    let text = format!("{bus:?}");
    assert!(text.contains(r#""serial": 16..=23"#), "{text}");
}
