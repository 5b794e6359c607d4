use super::{FLIPS, FlipTotals, run};

/// How many bits there are in every test run.
const BITS: u64 = 2000;

#[test]
fn two_thousand_flipped_bits_are_harmless_or_noticed_and_nothing_wrong_comes_out() {
    let mut totals = FlipTotals::default();
    for seed in 0..BITS / FLIPS {
        let report = run(seed);
        assert_eq!(
            report.finding, None,
            "replay: cargo x chaos --flip-seed {seed}"
        );
        totals.add(&report.totals);
    }
    println!("{totals:#?}");
    assert_eq!(totals.flips, BITS);
    // It was what it says.
    assert!(totals.noticed > 20 && totals.set_aside > 4, "{totals:?}");
}
