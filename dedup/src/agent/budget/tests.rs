//! What a budget allows for, as it runs short.

use super::pool::refusal;
use super::*;

const VM: VmId = VmId(0);

/// The shortest of some runs that can be paid for.
fn shortest(budget: &MappingBudget, held: u64) -> Option<u32> {
    let demand = Demand { held, ..Demand::default() };
    [1, 2, 4, 8, 32].into_iter().find(|&pages| budget.allows(pages, &demand))
}

#[test]
fn ever_longer_runs_are_demanded_as_the_budget_runs_short() {
    let budget = MappingBudget::new(1600);
    (0..4).for_each(|_| budget.count_vm(true));
    let demanded = |used, held| {
        budget.update(VM, 0, used, used);
        let shortest = shortest(&budget, held);
        budget.update(VM, used, 0, 0);
        shortest
    };
    let within = [0, 1499, 1500, 1525, 1550, 1575, 1600].map(|used| demanded(used, 375));
    assert_eq!(within, [Some(1), Some(1), Some(2), Some(4), Some(8), Some(32), None]);
    let beyond = [0, 1474, 1475, 1500, 1525, 1550, 1575].map(|used| demanded(used, 376));
    assert_eq!(beyond, [Some(1), Some(1), Some(2), Some(4), Some(8), Some(32), None]);
    assert_eq!(shortest(&MappingBudget::new(0), 0), None);
}

#[test]
fn a_refused_mapping_is_blamed_on_the_limit_that_was_reached() {
    assert!(refusal(50, 60).contains("vm.max_map_count"));
    assert!(refusal(0, 0).contains("vm.max_map_count"));
    let other = refusal(60, 50);
    assert!(other.contains("ulimit -v") && !other.contains("max_map_count"), "{other}");
}

// The second page of a pair took its VM beyond its share, and the first was given back for that.
#[test]
fn a_pair_that_would_take_its_vm_beyond_its_share_is_not_begun_while_others_lack_theirs() {
    let budget = MappingBudget::new(1600);
    (0..4).for_each(|_| budget.count_vm(true));
    budget.count_lack(VM, Lack::Nothing, Lack::Share);
    let pair = |held| budget.allows(1, &Demand { held, more: 2, pledge: 2, ..Demand::default() });
    assert_eq!([370, 371, 372, 373].map(pair), [true, true, false, false]);
    budget.count_lack(VM, Lack::Share, Lack::Nothing);
    assert!(pair(373), "what nobody lacks is lent");
}

#[test]
fn who_is_beyond_its_share_gives_back_what_another_lacks_in_any_engine_and_takes_nothing() {
    let pool = Arc::new(Pool { limit: AtomicU64::new(1600), ..Pool::default() });
    let [first, other] = [0, 1].map(|_| MappingBudget::of(Arc::clone(&pool)));
    first.count_vm(true);
    first.update(VM, 0, 1500, 1500);
    assert!(!first.is_owing() && other.lack(1, false) == Lack::Half);
    other.count_vm(true);
    other.count_lack(VM, Lack::Nothing, Lack::Share);
    assert!(first.is_owing());
    // Down to what nobody beyond its share may take, and then to its share.
    assert_eq!([first.owed(1500), first.owed(760), first.owed(750)], [75, 10, 0]);
    first.update(VM, 1500, 1000, 1000);
    assert_eq!((first.is_owing(), first.owed(1000)), (false, 0));
    assert_eq!([shortest(&first, 1000), shortest(&first, 700)], [None, Some(1)]);
    assert_eq!((first.room(1000, 32), other.room(1, 1)), (0, 500));
    other.count_lack(VM, Lack::Share, Lack::Nothing);
    assert_eq!(shortest(&first, 1000), Some(1));
    // What is left of a share is not worth taking anything from anybody.
    let lacks = [370, 371, 372, 704, 705].map(|held| other.lack(held, true));
    let [half, share, nothing] = [Lack::Half, Lack::Share, Lack::Nothing];
    assert_eq!(lacks, [half, half, share, share, nothing]);
}

#[test]
fn a_limit_that_was_raised_meanwhile_holds_when_the_budget_is_short() {
    let pool = Pool { is_of_process: true, limit: AtomicU64::new(100), ..Pool::default() };
    let budget = MappingBudget::of(Arc::new(pool));
    budget.reread_limit();
    assert_eq!(budget.limit(), 100);
    budget.update(VM, 0, 100, 100);
    let before = budget.state(0);
    budget.reread_limit();
    assert!(budget.limit() > 100 && budget.state(0) != before, "{budget:?}");
    let set = MappingBudget::new(100);
    set.update(VM, 0, 100, 100);
    set.reread_limit();
    assert_eq!(set.limit(), 100);
}

#[test]
fn what_is_pledged_is_not_there_for_anybody_else() {
    let budget = MappingBudget::new(64);
    budget.pledge(60);
    assert_eq!(shortest(&budget, 0), Some(2));
    assert!(budget.allows_at_all(&Demand { more: 60, ..Demand::default() }));
    assert!(!budget.allows_at_all(&Demand { more: 65, ..Demand::default() }));
    assert_eq!([budget.room(0, 1), budget.room(0, 2), budget.room(0, 40)], [0, 1, 4]);
    budget.redeem(20);
    assert_eq!(budget.room(0, 1), 20);
    budget.redeem_all();
    assert_eq!((budget.committed(), shortest(&budget, 0)), (0, Some(1)));
}
