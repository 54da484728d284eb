//! What a vCPU's thread is doing.

use std::time::Instant;

use super::StopReason;
use super::step::Step;

/// What a vCPU is commanded from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Run the guest.
    Run,
    /// Stay out of the guest.
    Pause,
    /// End a sleep now: there is something new for the guest to see.
    Wake,
    /// End.
    Stop,
}

/// What comes next when the guest may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    /// Enter it.
    Enter,
    /// Let it sleep until then.
    Sleep(Instant),
}

/// What a vCPU's thread is doing. It is out of `KVM_RUN` in every state but `Running(Enter)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum VcpuState {
    /// Waiting for a command; the activity is what a resumed guest goes on with.
    Parked(Activity),
    /// Running the guest.
    Running(Activity),
    /// Done.
    Stopped(StopReason),
}

impl VcpuState {
    /// The state after `command`.
    pub(crate) fn on_command(self, command: Command) -> Self {
        match (self, command) {
            (Self::Stopped(reason), _) => Self::Stopped(reason),
            (_, Command::Stop) => Self::Stopped(StopReason::Requested),
            (Self::Parked(activity) | Self::Running(activity), Command::Run) => {
                Self::Running(activity)
            }
            (Self::Parked(activity) | Self::Running(activity), Command::Pause) => {
                Self::Parked(activity)
            }
            (Self::Parked(_), Command::Wake) => Self::Parked(Activity::Enter),
            (Self::Running(_), Command::Wake) => Self::Running(Activity::Enter),
        }
    }

    /// The state of a running vCPU after `step`, taken at `now`.
    pub(crate) fn on_step(step: Step, now: Instant) -> Self {
        match step {
            Step::Enter | Step::Attend => Self::Running(Activity::Enter),
            // No register of a guest's is wide enough for a time that the clock cannot represent.
            Step::Sleep(time) => {
                Self::Running(now.checked_add(time).map_or(Activity::Enter, Activity::Sleep))
            }
            Step::Stop(reason) => Self::Stopped(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_paused_sleep_goes_on_when_resumed() {
        let end = Instant::now();
        let asleep = VcpuState::Running(Activity::Sleep(end));
        let paused = asleep.clone().on_command(Command::Pause);
        assert_eq!(paused, VcpuState::Parked(Activity::Sleep(end)));
        assert_eq!(paused.clone().on_command(Command::Pause), paused);
        assert_eq!(paused.on_command(Command::Run), asleep);
    }

    #[test]
    fn waking_ends_a_sleep_and_does_not_resume() {
        let end = Instant::now();
        assert_eq!(
            VcpuState::Running(Activity::Sleep(end)).on_command(Command::Wake),
            VcpuState::Running(Activity::Enter)
        );
        assert_eq!(
            VcpuState::Parked(Activity::Sleep(end)).on_command(Command::Wake),
            VcpuState::Parked(Activity::Enter)
        );
    }

    #[test]
    fn a_stopped_vcpu_stays_stopped_for_its_first_reason() {
        let stopped = VcpuState::on_step(Step::Stop(StopReason::Halted), Instant::now());
        for command in [Command::Run, Command::Pause, Command::Wake, Command::Stop] {
            assert_eq!(stopped.clone().on_command(command), VcpuState::Stopped(StopReason::Halted));
        }
        assert_eq!(
            VcpuState::Parked(Activity::Enter).on_command(Command::Stop),
            VcpuState::Stopped(StopReason::Requested)
        );
    }

    #[test]
    fn a_sleep_ends_that_much_later() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(
            VcpuState::on_step(Step::Sleep(second), now),
            VcpuState::Running(Activity::Sleep(now + second))
        );
        assert_eq!(VcpuState::on_step(Step::Enter, now), VcpuState::Running(Activity::Enter));
    }
}
