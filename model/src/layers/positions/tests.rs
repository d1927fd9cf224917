use rachis_kernels::bf16;
use rachis_testkit::goldens::Goldens;

use super::*;

const HEADS: [usize; 11] = [1, 2, 3, 4, 5, 8, 12, 16, 32, 71, 128];

fn tables() -> Goldens {
    Goldens::read("tables/tables.safetensors")
}

#[test]
fn alibi_slopes_match_the_reference() {
    let tables = tables();
    for heads in HEADS {
        let expected = &tables.float(&format!("alibi.slopes_f64.{heads}")).data;
        let found = alibi_slopes(heads);
        assert_eq!(found.len(), expected.len());
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found / expected - 1.0).abs() < 1e-14, "head {i} of {heads}: {found}, {expected}");
        }
    }
}

/// The bias is the slope times the key's position. The slope, the position and the product are rounded where the
/// reference rounds; the kernel rounds the latter two.
#[test]
fn alibi_biases_match_the_references() {
    let tables = tables();
    let keys = &tables.integer("alibi.positions").data;
    for (name, round) in [("hf_bf16_rounded", true), ("keras_f32", false)] {
        for heads in HEADS {
            let Positions::Alibi { slopes, .. } = Positions::alibi(heads, rounding(round)) else {
                unreachable!()
            };
            let expected = tables.float(&format!("alibi.{name}.{heads}"));
            assert_eq!(expected.shape, [heads, keys.len()]);
            for (head, row) in expected.rows().enumerate() {
                for (key, expected) in keys.iter().zip(row) {
                    let rounded = |x: f32| if round { bf16::from_f32(x).to_f32() } else { x };
                    let found = rounded(slopes[head] * rounded(*key as f32));
                    // KerasHub computes slopes as powers in f32, which are a few units in the last place off.
                    let bound = if round { 0.0 } else { 1e-6 * expected.abs() };
                    let error = (f64::from(found) - expected).abs();
                    assert!(error <= bound, "{name} head {head} of {heads}, key {key}: {found}, {expected}");
                }
            }
        }
    }
}

fn rounding(round: bool) -> AlibiRounding {
    if round { AlibiRounding::Bf16 } else { AlibiRounding::None }
}
