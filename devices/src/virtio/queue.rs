//! Requests taken off a virtqueue, and handed back to it.

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};

use super::Processed;
use crate::DeviceMemory;

/// Why a queue cannot be gone on with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the queue is out of order: {0}")]
pub struct QueueError(String);

impl From<virtio_queue::Error> for QueueError {
    fn from(error: virtio_queue::Error) -> Self {
        Self(error.to_string())
    }
}

/// Has `carry_out` carry out each request of a queue, as many as the queue has descriptors at most, and hands each back
/// to the driver with the number of bytes that were written to it, which `carry_out` returns.
/// O(requests).
///
/// # Errors
///
/// When the rings make no sense. Requests that were carried out before are in the used ring.
pub(super) fn carry_out_each<M: DeviceMemory>(
    queue: &mut Queue,
    memory: &M,
    mut carry_out: impl FnMut(DescriptorChain<&M>) -> u32,
) -> Result<Processed, QueueError> {
    let mut is_more = true;
    // The driver may add requests as fast as they are carried out.
    for _ in 0..queue.size() {
        queue.disable_notification(memory)?;
        let next = queue.iter(memory)?.next();
        if let Some(chain) = next {
            let head = chain.head_index();
            let written = carry_out(chain);
            queue.add_used(memory, head, written)?;
        } else if !queue.enable_notification(memory)? {
            is_more = false;
            break;
        }
    }
    Ok(Processed { is_interrupt_needed: queue.needs_notification(memory)?, is_more })
}
