//! VMs whose memory has pages in common, and engines with few mappings.

use pagefold_dedup::{DedupMode, Engine, EngineConfig, PAGE_SIZE};

use crate::common::{TestVm, config, page};

pub(crate) fn with_mappings(max_mappings: u64) -> Engine {
    let config = EngineConfig { max_mappings: Some(max_mappings), ..config() };
    Engine::new(config).unwrap()
}

/// Two VMs with that many pairs of equal pages, each between two pages that no other has.
pub(crate) fn pairs(engine: &mut Engine, first_id: u32, pair_count: u32) -> [TestVm; 2] {
    let vms = [0, 1].map(|n| TestVm::attached(engine, first_id + n, 2 * pair_count));
    for vm in &vms {
        for number in 0..2 * pair_count {
            vm.write(number as usize, &page(content(vm, first_id, number)));
        }
    }
    vms
}

pub(crate) fn content(vm: &TestVm, first_id: u32, number: u32) -> u32 {
    let whose = if number.is_multiple_of(2) { first_id } else { vm.id.0 };
    number + (2 * whose + number % 2) * 1_000_000
}

pub(crate) fn check_bytes(vms: &[TestVm; 2]) {
    for (vm, number) in
        vms.iter().flat_map(|vm| (0..vm.memory.len_bytes() / PAGE_SIZE).map(move |n| (vm, n)))
    {
        assert_eq!(vm.read(number), page(content(vm, vms[0].id.0, number as u32)));
    }
}

/// A VM of which every second page is equal to one other of its own, and no other is.
pub(crate) fn doubled(engine: &mut Engine, id: u32, page_count: u32) -> TestVm {
    let vm = TestVm::attached(engine, id, page_count);
    (0..page_count).for_each(|number| vm.write(number as usize, &doubled_page(&vm, number)));
    vm
}

pub(crate) fn doubled_page(vm: &TestVm, number: u32) -> [u8; PAGE_SIZE] {
    let half = vm.memory.len_bytes() as u32 / PAGE_SIZE as u32 / 2;
    let twin = if number.is_multiple_of(2) { number % half } else { number };
    page(twin + vm.id.0 * 1_000_000)
}

/// VMs that are not attached yet. Each of `groups` has so many pages in common, or a single VM twice, with a page of its
/// own after each.
pub(crate) fn sharing_in(groups: &[(Vec<usize>, u32)]) -> Vec<TestVm> {
    let vm_count = groups.iter().flat_map(|(vms, _)| vms).max().map_or(0, |last| last + 1);
    let mut contents = vec![Vec::new(); vm_count];
    let (mut common, mut own) = (0, 1_000_000);
    for (vms, page_count) in groups {
        for &vm in vms.iter().cycle().take(vms.len().max(2)) {
            for number in 0..*page_count {
                contents[vm].extend([common + number, own]);
                own += 1;
            }
        }
        common += page_count;
    }
    with_contents(&contents)
}

/// VMs that are not attached yet, whose pages have such contents.
pub(crate) fn with_contents(contents: &[Vec<u32>]) -> Vec<TestVm> {
    let vms = (0..).zip(contents).map(|(id, contents)| {
        let vm = TestVm::new(id, contents.len() as u32);
        (0..).zip(contents).for_each(|(number, &content)| vm.write(number, &page(content)));
        vm
    });
    vms.collect()
}

pub(crate) fn attach_all(engine: &mut Engine, vms: &[TestVm]) {
    for vm in vms {
        vm.attach(engine, "test", DedupMode::On);
    }
}

/// VMs that are not attached yet, in pairs of which each has so many pages in common, which lie side by side in those
/// that are marked, and between others in the rest.
pub(crate) fn sharing_runs(vm_count: usize, groups: &[([(usize, bool); 2], u32)]) -> Vec<TestVm> {
    let mut contents = vec![Vec::new(); vm_count];
    let (mut common, mut own) = (0, 1_000_000);
    for &(vms, page_count) in groups {
        for (vm, is_run) in vms {
            for number in 0..page_count {
                contents[vm].push(common + number);
                contents[vm].extend((!is_run || number + 1 == page_count).then_some(own));
                own += 1;
            }
        }
        common += page_count;
    }
    with_contents(&contents)
}
