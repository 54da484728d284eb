//! What a guest prints, taken apart into lines.

use pagefold_dedup::VmId;
use pagefold_devices::SerialOutput;

/// The longest line that guests are expected to print.
pub(crate) const MAX_LINE_BYTES: usize = 256;

/// Who makes something of a guest's lines. Called on the vCPU's thread, so it must not block.
pub(crate) trait Listener: Send {
    /// Takes the next line, without its end; one that was too long is cut to one byte more than the
    /// longest there can be.
    fn on_line(&mut self, line: &[u8]);
}

/// The output of a VM's serial port.
pub(crate) struct Console {
    vm: VmId,
    max_line_bytes: usize,
    listener: Box<dyn Listener>,
    /// The line so far, or its beginning: a guest cannot make us keep more than that.
    line: Vec<u8>,
}

impl Console {
    /// An output of `vm` whose lines, of at most `max_line_bytes` each, go to `listener`.
    pub(crate) fn new(vm: VmId, max_line_bytes: usize, listener: Box<dyn Listener>) -> Self {
        Self { vm, max_line_bytes, listener, line: Vec::new() }
    }
}

impl SerialOutput for Console {
    fn byte(&mut self, byte: u8) {
        if byte != b'\n' {
            // One byte more than the longest line makes a line too long, which is all there is to
            // know about it.
            if self.line.len() <= self.max_line_bytes {
                self.line.push(byte);
            }
            return;
        }
        log::debug!("VM {} prints {}", self.vm, self.line.escape_ascii());
        self.listener.on_line(&self.line);
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    impl Listener for Sender<Vec<u8>> {
        fn on_line(&mut self, line: &[u8]) {
            self.send(line.to_vec()).unwrap();
        }
    }

    #[test]
    fn bytes_become_lines() {
        let (listener, lines) = channel();
        let mut console = Console::new(VmId(0), 8, Box::new(listener));
        b"a\n\nbc\nd".iter().for_each(|byte| console.byte(*byte));
        assert_eq!(lines.try_iter().collect::<Vec<_>>(), [&b"a"[..], b"", b"bc"]);
    }

    #[test]
    fn a_guest_cannot_fill_our_memory() {
        let (listener, lines) = channel();
        let mut console = Console::new(VmId(0), 200, Box::new(listener));
        for _ in 0..100_000 {
            console.byte(b'x');
        }
        assert_eq!(console.line.len(), 201);
        console.byte(b'\n');
        assert_eq!(lines.try_recv().map(|line| line.len()), Ok(201));
    }
}
