//! Messages of agents that are wrong, out of order, or lies: the broker refuses them or takes them, and its
//! trees, items, extents and store agree with each other after each.

#![no_main]

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use pagefold_dedup::broker::LocalBroker;
use pagefold_dedup::extents::Extent;
use pagefold_dedup::protocol::{Broker, Directive, NamedOffer, Offer, Outcome};
use pagefold_dedup::{LinearIndex, PAGE_SIZE, Slot, VmId};

const VMS: u32 = 3;
const PAGES: u32 = 24;
const SLOTS: u32 = 16;
const CONTENTS: u8 = 6;

fuzz_target!(|data: &[u8]| {
    let mut lives = Lives::new();
    let mut input = Unstructured::new(data);
    while !input.is_empty() && lives.message(&mut input).is_ok() {
        lives.broker.check().expect("what the broker knows contradicts itself");
    }
    for vm in (0..=VMS).map(VmId) {
        let _ = lives.broker.unregister(vm);
    }
    lives.broker.check().expect("a broker without VMs contradicts itself");
    assert_eq!(lives.broker.node_count(), 0, "a node without sharers");
});

struct Lives {
    broker: LocalBroker,
    /// What the broker has asked of each VM, which honest answers name.
    asked: Vec<Vec<Directive>>,
}

impl Lives {
    fn new() -> Self {
        let mut broker = LocalBroker::new(SLOTS, 3).expect("a memory file");
        for vm in (0..VMS).map(VmId) {
            broker.register(vm, PAGES).expect("room for a VM");
        }
        Self { broker, asked: vec![Vec::new(); VMS as usize + 1] }
    }

    fn message(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        // One that there is not at first, too.
        let vm = VmId(input.int_in_range(0..=VMS)?);
        match input.int_in_range(0..=8)? {
            0..=1 => self.offer(vm, input)?,
            2 => self.offer_named(vm, input)?,
            3 => self.ask(vm, input)?,
            4 => self.fill(vm, input)?,
            5..=6 => self.report(vm, input)?,
            7 => {
                let _ = self.broker.age(vm, &linears(input)?, &mut Vec::new());
                let _ = self.broker.partners(vm, &linears(input)?, &mut Vec::new());
            }
            _ => {
                let _ = self.broker.unregister(vm);
                let _ = self.broker.register(vm, PAGES);
            }
        }
        Ok(())
    }

    fn offer(&mut self, vm: VmId, input: &mut Unstructured<'_>) -> Result<()> {
        let mut offers = Vec::new();
        for linear in linears(input)? {
            let content = page(input)?;
            offers.push(Offer { linear, fingerprint: self.broker.secret().fingerprint(&content) });
        }
        let _ = self.broker.offer(vm, &offers, &mut Vec::new());
        Ok(())
    }

    fn offer_named(&mut self, vm: VmId, input: &mut Unstructured<'_>) -> Result<()> {
        let mut offers = Vec::new();
        for linear in linears(input)? {
            let content = page(input)?;
            offers.push(NamedOffer { linear, identity: self.broker.secret().identity(&content) });
        }
        let _ = self.broker.offer_named(vm, &offers, &mut Vec::new());
        Ok(())
    }

    fn ask(&mut self, vm: VmId, input: &mut Unstructured<'_>) -> Result<()> {
        let mut directives = Vec::new();
        let limit = input.int_in_range(0..=8)?;
        if self.broker.directives(vm, limit, &mut directives).is_ok() {
            self.asked[vm.0 as usize].extend(directives);
        }
        Ok(())
    }

    fn fill(&mut self, vm: VmId, input: &mut Unstructured<'_>) -> Result<()> {
        let (_, first) = self.place(vm, input)?;
        let mut bytes = Vec::new();
        for _ in 0..input.int_in_range(0..=2)? {
            bytes.extend_from_slice(&page(input)?);
        }
        if input.ratio(1, 16)? {
            bytes.push(0);
        }
        let _ = self.broker.fill(vm, first, &bytes, &mut Vec::new());
        Ok(())
    }

    fn report(&mut self, vm: VmId, input: &mut Unstructured<'_>) -> Result<()> {
        let mut outcomes = Vec::new();
        for _ in 0..input.int_in_range(0..=3)? {
            let (linear, slot) = self.place(vm, input)?;
            let page_count = input.int_in_range(0..=3)?;
            outcomes.push(match input.int_in_range(0..=7)? {
                0 => Outcome::Merged(Extent { linear, slot, page_count: page_count.max(1) }),
                1 => Outcome::Declined { linear, slot },
                2 => Outcome::PutOff { linear, slot },
                3 => Outcome::Differs { linear, slot },
                4 => Outcome::Broken { linear },
                5 => Outcome::Left { linear },
                6 => Outcome::Yielded { linear },
                _ => Outcome::Unbacked { linear, page_count },
            });
        }
        let _ = self.broker.report(vm, &outcomes);
        Ok(())
    }

    /// A page and a slot: of a directive, or any.
    fn place(&self, vm: VmId, input: &mut Unstructured<'_>) -> Result<(LinearIndex, Slot)> {
        let asked = &self.asked[vm.0 as usize];
        if asked.is_empty() || input.ratio(1, 4)? {
            let linear = LinearIndex(input.int_in_range(0..=PAGES + 1)?);
            return Ok((linear, Slot(input.int_in_range(0..=SLOTS + 1)?)));
        }
        Ok(match *input.choose(asked)? {
            Directive::Create { linear, slot, .. } | Directive::Merge { linear, slot, .. } => {
                (linear, slot)
            }
            Directive::Offer { linear } | Directive::Unshare { linear } => (linear, Slot(0)),
        })
    }
}

fn linears(input: &mut Unstructured<'_>) -> Result<Vec<LinearIndex>> {
    let mut linears = Vec::new();
    for _ in 0..input.int_in_range(0..=4)? {
        linears.push(LinearIndex(input.int_in_range(0..=PAGES)?));
    }
    Ok(linears)
}

fn page(input: &mut Unstructured<'_>) -> Result<[u8; PAGE_SIZE]> {
    Ok([input.int_in_range(0..=CONTENTS)?; PAGE_SIZE])
}
