//! From a description to a VM that can be started.

use std::io;
use std::sync::{Arc, Mutex};

use kvm_ioctls::{VcpuFd, VmFd};
use pagefold_dedup::{DedupMode, SharedChanges, VmId};
use pagefold_devices::InsertError;
use pagefold_devices::virtio::block::OpenImageError;

use crate::config::{Guest, VmConfig};
use crate::console::{Console, MAX_LINE_BYTES};
use crate::dedup_host::AttachError;
use crate::host::Host;
use crate::kvm::OpenKvm;
use crate::loader::{
    BuiltinError, Entry, FlatError, LinuxError, LoadError, general_registers, special_registers,
    tsc_khz,
};
use crate::memory::{GuestRam, GuestRamError, HostMemoryError, KvmDirtyLog, MemoryLayout};
use crate::pc::{DeviceHost, VirtioDevices};
use crate::sys::memslot::MappedVm;
use crate::vcpu::{SpawnVcpuError, Vcpu, VcpuThreads};
use crate::vm::{GuestListener, Machine, Vm, VmHandle};
use crate::watch::Watch;

/// As many vCPUs as there are APIC ids of 8 bits, less the one that means all of them.
const MAX_VCPUS: u32 = 255;

/// As long as a host's name can be.
const MAX_NAME_BYTES: usize = 255;

/// Why a VM could not be built; nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The host object has made as many VMs as there are numbers.
    #[error("this host has no VM ids left")]
    NoIds,
    /// Its name would not do in a line of text.
    #[error("a VM's name has 1 to {MAX_NAME_BYTES} bytes and no control characters, unlike {0:?}")]
    Name(String),
    /// Its memory could not be made.
    #[error(transparent)]
    Ram(#[from] GuestRamError),
    /// Its memory ends where the processor has no addresses any more.
    #[error(
        "{} MiB of memory would end at {end:#x}, and guests here have addresses of {bits} bits: \
         use more VMs, or smaller ones",
        memory_bytes >> 20
    )]
    AddressBits {
        /// The size requested.
        memory_bytes: u64,
        /// The first address above it.
        end: u64,
        /// Bits of a guest-physical address.
        bits: u32,
    },
    /// No VM here has that many vCPUs.
    #[error("a VM has 1 to {max} vCPUs here, and {vcpus} were asked for")]
    Vcpus {
        /// The number requested.
        vcpus: u32,
        /// The most there can be.
        max: u32,
    },
    /// The host cannot bear it.
    #[error(transparent)]
    HostMemory(#[from] HostMemoryError),
    /// KVM refused something.
    #[error("KVM refuses to {attempted}{}", limits(source))]
    Kvm {
        /// What was tried.
        attempted: &'static str,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The built-in guest could not be loaded.
    #[error(transparent)]
    Builtin(#[from] BuiltinError),
    /// The flat image could not be loaded.
    #[error(transparent)]
    Flat(#[from] FlatError),
    /// The Linux kernel could not be loaded.
    #[error(transparent)]
    Linux(#[from] LinuxError),
    /// Two devices are to be at the same port or address.
    #[error(transparent)]
    Device(#[from] InsertError),
    /// It has no room for so many virtio devices.
    #[error(
        "a VM has at most {max} virtio devices (disks, an entropy source), and {wanted} were asked for"
    )]
    VirtioDevices {
        /// The number asked for.
        wanted: u32,
        /// The most there can be.
        max: u32,
    },
    /// One of its disks cannot be used.
    #[error(transparent)]
    Disk(#[from] OpenImageError),
    /// There is nobody to carry out the requests to its disks.
    #[error("cannot start a thread for disks: see the limit on processes (ulimit -u)")]
    DiskThread(#[source] io::Error),
    /// One of its vCPUs could not be started.
    #[error(transparent)]
    Vcpu(#[from] SpawnVcpuError),
    /// It could not be registered for folding.
    #[error("cannot register VM {vm} for folding")]
    Dedup {
        /// The VM.
        vm: VmId,
        /// Why.
        #[source]
        source: AttachError,
    },
}

impl From<LoadError> for BuildError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Builtin(error) => error.into(),
            LoadError::Flat(error) => error.into(),
            LoadError::Linux(error) => error.into(),
        }
    }
}

/// What to do about the errors whose cause the kernel's message does not name.
fn limits(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => ": see the limit on open files (ulimit -n)",
        Some(libc::ENOMEM) => {
            ": see the limit on mappings (sysctl vm.max_map_count) and free memory"
        }
        _ => "",
    }
}

/// A VM about to be built.
#[derive(Debug)]
#[must_use = "a VM is made by build()"]
pub struct VmBuilder<'host> {
    host: &'host Host,
    config: VmConfig,
}

impl<'host> VmBuilder<'host> {
    pub(crate) fn new(host: &'host Host, config: VmConfig) -> Self {
        Self { host, config }
    }

    /// Makes the VM: memory, guest, devices and vCPUs waiting to be started.
    ///
    /// # Errors
    ///
    /// When the configuration makes no sense, or the host cannot bear the VM; nothing of it is left
    /// behind.
    pub fn build(self) -> Result<VmHandle, BuildError> {
        let Self { host, config } = self;
        config.check_name()?;
        let id = host.registry().new_id().ok_or(BuildError::NoIds)?;

        let layout = config.check_shape()?;
        check_addresses(layout, host.kvm().physical_bits())?;
        check_vcpus(config.vcpus, host.kvm().max_vcpus())?;
        let ram = Arc::new(GuestRam::new(config.memory_bytes)?);
        let reservation = host.memory().reserve(config.memory_bytes)?;
        let kvm = host.kvm();
        let fd = create_vm(kvm)?;
        let platform = config.guest.platform();
        platform.create_controllers(&fd)?;
        // A log that nobody reads costs the guest a fault for each page that it writes first.
        let mapped = MappedVm::new(fd, Arc::clone(&ram), config.dedup != DedupMode::Off)
            .map_err(|source| BuildError::Kvm { attempted: "take guest memory", source })?;
        let mapped = Arc::new(mapped);

        let numbers = 0..config.vcpus;
        let fds: Result<Vec<_>, _> = numbers
            .clone()
            .map(|number| platform.create_vcpu(kvm, mapped.fd(), number, config.vcpus))
            .collect();
        let fds = fds?;
        // All are the same processor's.
        let tsc_khz = fds.first().map_or(0, tsc_khz);
        let extension = config.guest.extension(ram.len_bytes(), tsc_khz)?;
        let entries = config.guest.loader().load(&ram, config.vcpus, tsc_khz)?;
        fds.iter().zip(&entries).try_for_each(|(fd, entry)| set_registers(fd, entry))?;

        let watch = Arc::<Watch>::default();
        watch.change(|watched| watched.dedup = config.dedup);
        let folding = host.dedup().waker();
        let listener =
            GuestListener { extension: Arc::clone(&extension), watch: Arc::clone(&watch), folding };
        let output = Console::new(id, MAX_LINE_BYTES, Box::new(listener));
        let mut buses = platform.devices(mapped.fd(), output)?;
        extension.insert_devices(&mut buses)?;
        let (virtio, device_metrics) = match &config.guest {
            Guest::Linux(linux) => VirtioDevices::new(
                &linux.devices,
                (id, mapped.fd()),
                ram.memory(),
                &mut buses.mmio,
                DeviceHost { events: host.queue_events(), workers: host.workers() },
            )?,
            Guest::Builtin(_) | Guest::Flat(_) => (VirtioDevices::none(), Vec::new()),
        };
        let buses = Arc::new(buses);
        let spawn = |(number, fd)| {
            Vcpu { fd, buses: Arc::clone(&buses), vm: Arc::clone(&mapped) }
                .spawn(format!("vm{id}-vcpu{number}"), host.exit_notifier().of(id))
        };
        let vcpus: Result<Vec<_>, _> = numbers.zip(fds).map(spawn).collect();
        let vcpus = VcpuThreads::new(vcpus?);

        // Last, so that nothing can fail after it and leave the VM registered.
        let log = Box::new(KvmDirtyLog::new(mapped));
        let changes = SharedChanges::new(log, ram.page_count(), config.dedup != DedupMode::Off);
        let dedup = host.dedup().clone();
        let attached = if config.dedup == DedupMode::Off {
            dedup.leave_unfolded(id, &ram)
        } else {
            let consumer = changes
                .consumer()
                .map_err(|source| BuildError::Kvm { attempted: "log writes", source })?;
            dedup.attach(id, &ram, Box::new(consumer), config.dedup)
        };
        attached.map_err(|source| BuildError::Dedup { vm: id, source })?;

        let machine = Mutex::new(Some(Machine { vcpus, virtio, dedup, changes, ram, reservation }));
        let vm = Vm { id, config, extension, buses, device_metrics, watch, machine };
        let handle = VmHandle { vm: Arc::new(vm) };
        host.registry().insert(handle.clone());
        Ok(handle)
    }
}

impl VmConfig {
    /// Whether there can be such a VM, as far as its configuration shows: nothing is made. Its disks are
    /// opened, and closed again.
    ///
    /// # Errors
    ///
    /// When its name would not do, its guest does not run in such a VM, or a disk cannot be used.
    pub fn check(&self) -> Result<(), BuildError> {
        self.check_name()?;
        self.check_shape().map(drop)
    }

    fn check_name(&self) -> Result<(), BuildError> {
        match self.name.as_ref().filter(|name| !is_name(name)) {
            Some(name) => Err(BuildError::Name(name.chars().take(MAX_NAME_BYTES).collect())),
            None => Ok(()),
        }
    }

    fn check_shape(&self) -> Result<MemoryLayout, BuildError> {
        let layout = MemoryLayout::new(self.memory_bytes)?;
        check_vcpus(self.vcpus, MAX_VCPUS)?;
        if let Guest::Linux(linux) = &self.guest {
            linux.devices.check()?;
        }
        self.guest.loader().check(layout, self.vcpus)?;
        Ok(layout)
    }
}

fn check_vcpus(vcpus: u32, max: u32) -> Result<(), BuildError> {
    if (1..=max).contains(&vcpus) { Ok(()) } else { Err(BuildError::Vcpus { vcpus, max }) }
}

fn check_addresses(layout: MemoryLayout, bits: u32) -> Result<(), BuildError> {
    let (memory_bytes, end) = (layout.memory_bytes(), layout.end());
    if 1_u64.checked_shl(bits).is_some_and(|addresses| end > addresses) {
        return Err(BuildError::AddressBits { memory_bytes, end, bits });
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
}

fn create_vm(kvm: &OpenKvm) -> Result<VmFd, BuildError> {
    loop {
        match kvm.kvm.create_vm() {
            // A signal for this thread is no reason not to make a VM.
            Err(error) if error.errno() == libc::EINTR => {}
            result => return result.map_err(refused("create a VM")),
        }
    }
}

fn set_registers(vcpu: &VcpuFd, entry: &Entry) -> Result<(), BuildError> {
    let reset = vcpu.get_sregs().map_err(refused("read the special registers"))?;
    vcpu.set_sregs(&special_registers(&reset, entry))
        .map_err(refused("set the special registers"))?;
    vcpu.set_regs(&general_registers(entry)).map_err(refused("set the registers"))
}

pub(crate) fn refused<E: Into<io::Error>>(attempted: &'static str) -> impl FnOnce(E) -> BuildError {
    move |error| BuildError::Kvm { attempted, source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_the_processor_cannot_address_is_refused_with_its_end() {
        let check =
            |memory_bytes, bits| check_addresses(MemoryLayout::new(memory_bytes).unwrap(), bits);
        assert!(check(64 << 20, 36).is_ok());
        assert!(check(63 << 30, 36).is_ok());
        let error = check((63 << 30) + 4096, 36).unwrap_err().to_string();
        assert!(error.contains("end at 0x1000001000") && error.contains("36 bits"), "{error}");
        assert!(check(1 << 40, 40).is_err());
        assert!(check(1 << 40, 64).is_ok());
    }
}
