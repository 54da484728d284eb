//! Bodies of requests: each is refused with a reason or understood, and what was understood is understood
//! again when it is written out.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pagefold_api_types::request::{
    CompactRequest, KnobChanges, RequestBody, SettleRequest, VmChange,
};
use pagefold_dedup::{Knobs, parse_number};
use serde::Serialize;

fuzz_target!(|data: &[u8]| {
    understand::<VmChange>(data);
    understand::<SettleRequest>(data);
    understand::<CompactRequest>(data);
    if let Ok(changes) = serde_json::from_slice::<KnobChanges>(data) {
        let mut knobs = Knobs::default();
        for (key, value) in changes.0 {
            let _ = knobs.set(&key, &value);
        }
        let _ = knobs.check();
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = parse_number(text);
    }
});

fn understand<T: RequestBody + Serialize + PartialEq + std::fmt::Debug>(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<T>(data) {
        let text = serde_json::to_vec(&request).expect("a request is JSON");
        let again = serde_json::from_slice::<T>(&text).expect("what was written is understood");
        assert_eq!(again, request);
    }
}
