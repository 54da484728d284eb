use proptest::prelude::*;

use super::*;
use crate::layout::{MAX_MEMORY_BYTES, MIN_MEMORY_BYTES};
use crate::workload::Preset;

fn mix() -> Params {
    Preset::Mix.params(1, 0, 64 << 20, 2_000_000).unwrap()
}

#[test]
fn a_page_nobody_wrote_is_refused_by_its_magic() {
    let error = Params::decode(&[0; PARAMS_BYTES]).unwrap_err();
    assert_eq!(error, ParamsError::Magic { found: 0 });
}

#[test]
fn another_version_is_refused_by_its_number() {
    let mut page = mix().encode();
    page[8] = 9;
    assert_eq!(Params::decode(&page), Err(ParamsError::Version { found: 9 }));
}

#[test]
fn counts_that_are_not_the_heap_are_refused() {
    let heap = mix().common_pages + mix().own_pages + mix().zero_pages;
    let params = Params { common_pages: u32::MAX, own_pages: u32::MAX, ..mix() };
    assert_eq!(
        Params::decode(&params.encode()),
        Err(ParamsError::PageCount { asked: params.pages(), heap })
    );
}

#[test]
fn rates_without_pages_are_refused() {
    let params =
        Params { own_pages: 0, common_pages: mix().common_pages + mix().own_pages, ..mix() };
    let field = "churn_new_per_s";
    assert_eq!(params.check(), Err(ParamsError::NothingToWrite { field }));
    let heap = u32::try_from(mix().pages()).unwrap();
    let params = Params { own_pages: heap, common_pages: 0, zero_pages: 0, ..mix() };
    let field = "churn_back_per_s";
    assert_eq!(params.check(), Err(ParamsError::NothingToWrite { field }));
}

#[test]
fn a_clock_without_frequency_is_refused() {
    let params = Params { tsc_khz: 0, ..mix() };
    assert_eq!(params.check(), Err(ParamsError::Zero { field: "tsc_khz" }));
}

#[test]
fn one_vm_saves_only_its_zero_pages() {
    let params = mix();
    assert_eq!(params.ideal_saved_pages(0), 0);
    assert_eq!(params.ideal_saved_pages(1), u64::from(params.zero_pages));
    assert_eq!(
        params.ideal_saved_pages(4),
        u64::from(params.common_pages) * 3 + u64::from(params.zero_pages) * 4
    );
}

proptest! {
    #[test]
    fn decode_undoes_encode(
        seed: u64,
        vm_number: u32,
        tsc_khz in 1u32..,
        pages in MIN_MEMORY_BYTES / 4096..=MAX_MEMORY_BYTES / 4096,
        preset in prop::sample::select(&Preset::ALL[..]),
    ) {
        let params = preset.params(seed, vm_number, pages * 4096, tsc_khz).unwrap();
        prop_assert_eq!(Params::decode(&params.encode()), Ok(params));
    }

    #[test]
    fn decode_never_panics(start in prop::collection::vec(any::<u8>(), 64), has_magic: bool) {
        let mut page = mix().encode();
        let from = if has_magic { 12 } else { 0 };
        page[from..from + 64].copy_from_slice(&start);
        let _ = Params::decode(&page);
    }
}
