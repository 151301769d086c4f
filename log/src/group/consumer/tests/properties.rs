//! Many clients at random: no partition is two members' at a time, epochs never go back, and in the end each partition is
//! somebody's, evenly.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::Partitions;
use super::clients::{CLIENTS, Step, World, steps};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_partition_is_two_members_and_each_is_one_members_in_the_end(steps in steps()) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.step(step));
        world.settle();
        world.check_settled();
    }

    #[test]
    fn who_stays_keeps_what_it_had_when_others_come_and_go(first in 0..CLIENTS, second in 0..CLIENTS) {
        let mut world = World::new();
        world.settle();
        let before: Vec<Partitions> = world.clients.iter().map(|client| client.holds.clone()).collect();
        world.clients[first].instance = None;
        for n in BTreeSet::from([first, second]) {
            let beat = world.beat(n, -1, false);
            world.send(beat);
            world.step(Step::Store(true));
            world.begin_anew(n);
            world.clients[n].waits = Some(0);
        }
        world.settle();
        for (n, had) in before.iter().enumerate().filter(|(n, _)| ![first, second].contains(n)) {
            prop_assert!(had.is_subset(&world.clients[n].holds), "{n} lost something");
        }
        let before: Vec<Partitions> = world.clients.iter().map(|client| client.holds.clone()).collect();
        for n in [first, second] {
            world.clients[n].waits = None;
        }
        world.settle();
        world.check_settled();
        for (n, had) in before.iter().enumerate().filter(|(n, _)| ![first, second].contains(n)) {
            prop_assert!(world.clients[n].holds.is_subset(had), "{n} got something that another had");
        }
    }
}
