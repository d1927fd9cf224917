//! Running a test at every instruction-set level of the machine, and failing when one is missing.

use core::fmt::Display;

/// Names the levels that must run, comma separated. Unset: no expectation.
pub const EXPECT_VARIABLE: &str = "EXPECT_ISA";

/// Calls `test` for each level, prints which ran, and fails if one named in [`EXPECT_VARIABLE`] did not.
///
/// # Panics
/// When an expected level is not among `levels`, or `levels` is empty.
pub fn for_each_level<L: Display>(levels: impl IntoIterator<Item = L>, mut test: impl FnMut(L)) {
    let mut ran = Vec::new();
    for level in levels {
        let name = level.to_string();
        println!("level {name}");
        test(level);
        ran.push(name);
    }
    assert!(!ran.is_empty(), "no level ran");
    let expected = std::env::var(EXPECT_VARIABLE).unwrap_or_default();
    let missing = missing(&expected, &ran);
    assert!(missing.is_empty(), "{EXPECT_VARIABLE}={expected}, but {missing:?} did not run (ran: {ran:?})");
}

/// The names in the list `expected` that are not in `ran`.
fn missing<'a>(expected: &'a str, ran: &[String]) -> Vec<&'a str> {
    let names = expected.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.filter(|name| !ran.iter().any(|ran| ran == name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_did_not_run_is_missed() {
        let ran = ["scalar".to_owned(), "avx2".to_owned()];
        assert!(missing("", &ran).is_empty());
        assert!(missing("avx2, scalar", &ran).is_empty());
        assert_eq!(missing("scalar,avx512,avx", &ran), ["avx512", "avx"]);
    }

    #[test]
    #[should_panic(expected = "no level ran")]
    fn nothing_is_not_a_success() {
        for_each_level(Vec::<String>::new(), |_| {});
    }
}
