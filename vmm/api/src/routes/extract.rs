//! What is taken from a request's target.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use pagefold_dedup::{VmId, parse_number};

use crate::error::ApiError;
use pagefold_api_types::GuestPhys;

/// The `{id}` of a path.
pub(super) struct Id(pub(super) VmId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) =
            Path::<String>::from_request_parts(parts, state).await.map_err(|error| {
                ApiError::bad_request(format!("the VM's id is unreadable: {error}"), ID_HINT)
            })?;
        id(&text).map(Self)
    }
}

const ID_HINT: &str = "a VM's id is a number, decimal or with 0x; GET /v1/vms lists the VMs";

fn id(text: &str) -> Result<VmId, ApiError> {
    let id = parse_number(text).ok().and_then(|id| id.try_into().ok());
    let refused = || ApiError::bad_request(format!("{text:?} is not the id of a VM"), ID_HINT);
    id.map(VmId).ok_or_else(refused)
}

/// `?vm=ID&gpa=ADDRESS`, in any order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PageQuery {
    pub(super) vm: VmId,
    pub(super) gpa: GuestPhys,
}

impl<S: Send + Sync> FromRequestParts<S> for PageQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

impl PageQuery {
    /// Both are made of letters and digits, so nothing in them needs to be decoded.
    fn parse(query: &str) -> Result<Self, ApiError> {
        let hint = "ask for ?vm=ID&gpa=ADDRESS, as in ?vm=0&gpa=0x100000";
        let refused = |error: String| ApiError::bad_request(error, hint);
        let (mut vm, mut gpa) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let place = match key {
                "vm" => &mut vm,
                "gpa" => &mut gpa,
                _ => return Err(refused(format!("{key:?} is not asked for here"))),
            };
            if place.replace(value).is_some() {
                return Err(refused(format!("{key} is there twice")));
            }
        }
        let missing = |key| refused(format!("{key} is missing"));
        let (vm, gpa) = (vm.ok_or_else(|| missing("vm"))?, gpa.ok_or_else(|| missing("gpa"))?);
        let gpa = gpa.parse().map_err(|error| refused(format!("gpa={gpa}: {error}")))?;
        Ok(Self { vm: id(vm)?, gpa })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_asked_for_by_vm_and_address_in_any_order() {
        let page = PageQuery { vm: VmId(7), gpa: GuestPhys(4096) };
        for query in ["vm=7&gpa=4096", "gpa=0x1000&vm=7", "&gpa=4K&&vm=0x7&"] {
            assert_eq!(PageQuery::parse(query).as_ref(), Ok(&page), "{query}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for query in [
            "",
            "vm=7",
            "gpa=7",
            "vm=&gpa=",
            "vm=7&gpa=",
            "vm=7&gpa=1&gpa=1",
            "vm=7&gpa=1&x=1",
            "vm=-7&gpa=1",
            "vm=4G&gpa=1",
            "vm=7&gpa=%31",
            "vm=7&gpa=0xfffffffffffffffff",
        ] {
            assert!(PageQuery::parse(query).is_err(), "{query}");
        }
    }
}
