//! Who can do something about an error is in its class, however deep its cause is.

#![allow(clippy::unwrap_used, reason = "a failure is a panic")]

mod common;

use common::{TestVm, page, settle};
use pagefold_dedup::errors::{BrokerError, SystemError};
use pagefold_dedup::{
    AttachError, Classified, DedupMode, Engine, EngineConfig, ErrorClass, Knobs, PagesError, VmId,
};

#[test]
fn an_error_is_the_callers_until_another_call_would_succeed() {
    let mut engine = Engine::new(common::config()).unwrap();
    let vms = [0, 1].map(|id| TestVm::attached(&mut engine, id, 4));
    let twice = vms[0].try_attach(&mut engine, "test", DedupMode::On).unwrap_err();
    assert_eq!(twice.class(), ErrorClass::Caller);
    let unknown = engine.set_mode(VmId(7), DedupMode::Off).unwrap_err();
    assert_eq!(unknown.class(), ErrorClass::Caller);
    let zero = Knobs { max_page_sharing: 0, ..engine.knobs() };
    let config = EngineConfig { knobs: zero, ..common::config() };
    assert_eq!(Engine::new(config).err().unwrap().class(), ErrorClass::Caller);
    assert_eq!(engine.set_knobs(zero).unwrap_err().class(), ErrorClass::Caller);
}

#[test]
fn what_shared_pages_stand_in_the_way_of_is_busy() {
    let mut engine = Engine::new(common::config()).unwrap();
    let vms = [0, 1].map(|id| TestVm::attached(&mut engine, id, 4));
    for vm in &vms {
        vm.write(1, &page(1));
    }
    settle(&mut engine);
    let other = Knobs { max_page_sharing: 2, ..engine.knobs() };
    assert_eq!(engine.set_knobs(other).unwrap_err().class(), ErrorClass::Busy);
    let refused = engine.set_numa_node(vms[0].id, 1).unwrap_err();
    assert!(matches!(refused, PagesError::InUse(_)), "{refused}");
    assert_eq!(refused.class(), ErrorClass::Busy);
}

#[test]
fn what_the_kernel_refused_a_broker_is_the_hosts_and_a_contradiction_a_bug() {
    let through =
        |source| AttachError::Broker { vm: VmId(0), domain: "test".to_owned(), source }.class();
    let no_memory = std::io::Error::from_raw_os_error(libc::ENOMEM);
    assert_eq!(through(BrokerError::Store(SystemError::from(no_memory))), ErrorClass::Host);
    assert_eq!(through(BrokerError::UnknownVm(VmId(0))), ErrorClass::Bug);
}
