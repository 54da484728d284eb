//! The machine that a guest runs on: a bare processor, or a PC.

use std::sync::{Arc, Mutex};

use kvm_ioctls::{VcpuFd, VmFd};
use pagefold_devices::{Buses, SerialConsole};

use crate::builder::{BuildError, refused};
use crate::console::Console;
use crate::kvm::OpenKvm;
use crate::pc::{self, IrqLine, layout};

/// The machine that a guest runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Platform {
    /// Processors and a serial port, without interrupts: HLT exits.
    Bare,
    /// What firmware describes to a stock kernel.
    Pc,
}

impl Platform {
    /// Makes interrupt controllers and timers, if the machine has them, and takes performance counters away,
    /// before there is a vCPU.
    pub(crate) fn create_controllers(self, vm: &VmFd) -> Result<(), BuildError> {
        match self {
            Self::Bare => Ok(()),
            Self::Pc => {
                pc::disable_counters(vm).map_err(refused("take performance counters away"))?;
                pc::create_irqchip(vm).map_err(refused("make interrupt controllers"))
            }
        }
    }

    /// Makes vCPU `number` of `vcpus`.
    pub(crate) fn create_vcpu(
        self,
        kvm: &OpenKvm,
        vm: &VmFd,
        number: u32,
        vcpus: u32,
    ) -> Result<VcpuFd, BuildError> {
        let vcpu = vm.create_vcpu(number.into()).map_err(refused("create a vCPU"))?;
        let cpuid = match self {
            Self::Bare => kvm.cpuid_of(number),
            Self::Pc => pc::cpuid(kvm, number, vcpus).map_err(refused("describe its processor"))?,
        };
        vcpu.set_cpuid2(&cpuid).map_err(refused("set the CPUID"))?;
        if self == Self::Pc {
            pc::set_msrs(&vcpu).map_err(refused("set model-specific registers"))?;
        }
        Ok(vcpu)
    }

    /// Makes its devices: a serial port that prints to `output`, and what the machine has besides.
    pub(crate) fn devices(self, vm: &VmFd, output: Console) -> Result<Buses, BuildError> {
        match self {
            Self::Bare => {
                let mut buses = Buses::default();
                let device = Arc::new(Mutex::new(SerialConsole::new(output)));
                buses.ports.insert("serial port", layout::SERIAL, device)?;
                Ok(buses)
            }
            Self::Pc => {
                let serial = IrqLine::new(vm, layout::SERIAL_IRQ);
                Ok(pc::devices(output, serial.map_err(refused("raise an interrupt"))?)?)
            }
        }
    }
}
