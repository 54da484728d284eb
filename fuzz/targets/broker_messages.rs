//! Messages of agents that are wrong, out of order, or lies, as bytes that may be spoiled on the way: the broker
//! refuses them or takes them, and its trees, items, extents and store agree with each other after each.

#![no_main]

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use pagefold_dedup::internals::{
    AgentReply, AgentRequest, Bytes, Directive, Extent, IdentityOffer, LocalBroker, Offer, Outcome,
    decode, encode,
};
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
        AgentRequest::Unregister(vm).dispatch(&mut lives.broker);
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
        let request = match input.int_in_range(0..=9)? {
            0..=1 => self.offer(vm, input)?,
            2 => self.offer_by_identity(vm, input)?,
            3 => AgentRequest::Directives(vm, input.int_in_range(0..=8)?),
            4 => self.fill(vm, input)?,
            5..=6 => self.report(vm, input)?,
            7 => AgentRequest::Age(vm, linears(input)?),
            8 => AgentRequest::Partners(vm, linears(input)?),
            _ => {
                AgentRequest::Unregister(vm).dispatch(&mut self.broker);
                let _ = self.broker.register(vm, PAGES);
                return Ok(());
            }
        };
        self.send(request, input)
    }

    /// Has the broker answer what comes of a request's bytes at its end, if that is a request.
    fn send(&mut self, request: AgentRequest, input: &mut Unstructured<'_>) -> Result<()> {
        let mut bytes = encode(&request).expect("a request can be encoded");
        let is_spoiled = input.ratio(1, 8)?;
        if is_spoiled {
            spoil(&mut bytes, input)?;
        }
        let received = match decode::<AgentRequest>(&bytes) {
            Ok(received) => received,
            Err(_) if is_spoiled => return Ok(()),
            Err(error) => panic!("{request:?}: {error:?}"),
        };
        assert!(is_spoiled || received == request, "{request:?} became {received:?}");
        let vm = match received {
            AgentRequest::Directives(vm, _) => Some(vm),
            _ => None,
        };
        let reply = received.dispatch(&mut self.broker);
        let bytes = encode(&reply).expect("an answer can be encoded");
        assert_eq!(decode::<AgentReply>(&bytes).as_ref(), Ok(&reply));
        if let (Some(vm), AgentReply::Directives(Ok(directives))) = (vm, reply) {
            self.asked[vm.0 as usize].extend(directives);
        }
        Ok(())
    }

    fn offer(&self, vm: VmId, input: &mut Unstructured<'_>) -> Result<AgentRequest> {
        let mut offers = Vec::new();
        for linear in linears(input)? {
            let content = page(input)?;
            offers.push(Offer { linear, fingerprint: self.broker.secret().fingerprint(&content) });
        }
        Ok(AgentRequest::Offer(vm, offers))
    }

    fn offer_by_identity(&self, vm: VmId, input: &mut Unstructured<'_>) -> Result<AgentRequest> {
        let mut offers = Vec::new();
        for linear in linears(input)? {
            let content = page(input)?;
            offers
                .push(IdentityOffer { linear, identity: self.broker.secret().identity(&content) });
        }
        Ok(AgentRequest::OfferByIdentity(vm, offers))
    }

    fn fill(&self, vm: VmId, input: &mut Unstructured<'_>) -> Result<AgentRequest> {
        let (_, first) = self.place(vm, input)?;
        let mut bytes = Vec::new();
        for _ in 0..input.int_in_range(0..=2)? {
            bytes.extend_from_slice(&page(input)?);
        }
        if input.ratio(1, 16)? {
            bytes.push(0);
        }
        Ok(AgentRequest::Fill(vm, first, Bytes(bytes)))
    }

    fn report(&self, vm: VmId, input: &mut Unstructured<'_>) -> Result<AgentRequest> {
        let mut outcomes = Vec::new();
        for _ in 0..input.int_in_range(0..=3)? {
            let (linear, slot) = self.place(vm, input)?;
            let page_count = input.int_in_range(0..=3)?;
            outcomes.push(match input.int_in_range(0..=7)? {
                0 => Outcome::Merged(Extent { linear, slot, page_count: page_count.max(1) }),
                1 => Outcome::Declined { linear, slot },
                2 => Outcome::Deferred { linear, slot },
                3 => Outcome::Differs { linear, slot },
                4 => Outcome::Broken { linear },
                5 => Outcome::Left { linear },
                6 => Outcome::Yielded { linear },
                _ => Outcome::Unbacked { linear, page_count },
            });
        }
        Ok(AgentRequest::Report(vm, outcomes))
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

/// Writes over some of a message, or cuts it off.
fn spoil(bytes: &mut Vec<u8>, input: &mut Unstructured<'_>) -> Result<()> {
    // What a message means is decided in its first bytes and its last.
    let at = input.int_in_range(0..=24)?.min(bytes.len() - 1);
    let at = if input.arbitrary()? { at } else { bytes.len() - 1 - at };
    for byte in bytes.iter_mut().skip(at).take(input.int_in_range(0..=10)?) {
        *byte = input.arbitrary()?;
    }
    if input.ratio(1, 8)? {
        bytes.truncate(at);
    }
    Ok(())
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
