//! Checkpoints written by PyTorch (`tests/fixtures/gen_weights.py`), and damaged ones.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::budget::Budget;
use super::pickle::Loaded;
use super::torch_objects::TorchGlobals;
use super::{DType, Weights, WeightsError, from_bytes, read};

/// Runs a pickle with the budget of a file of a megabyte.
fn machine(pickle: &[u8]) -> Result<Loaded<TorchGlobals>, WeightsError> {
    super::pickle::load(pickle, &TorchGlobals, &mut Budget::of_file(1 << 20))
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/weights").join(name)
}

/// The tensors that the script saved, as it described them: name, shape, type, values.
fn expected() -> Vec<(String, Vec<usize>, String, Vec<f32>)> {
    serde_json::from_str(include_str!("../../tests/fixtures/weights/expected.json")).unwrap()
}

fn compare(weights: &Weights, what: &str) {
    let expected = expected();
    assert_eq!(weights.len(), expected.len(), "{what}");
    for (name, shape, dtype, values) in expected {
        let tensor = &weights[&name];
        assert_eq!(tensor.shape, shape, "{what}: {name}");
        assert_eq!(tensor.dtype, DType::from_name(&dtype).unwrap(), "{what}: {name}");
        assert_eq!(tensor.to_f32().unwrap(), values, "{what}: {name}");
    }
}

#[test]
fn both_formats_give_what_was_saved() {
    for name in ["zip.pth", "legacy.pth", "wrapped.pth", "parallel.pth", "parameters.pth"] {
        compare(&read(&fixture(name)).unwrap(), name);
    }
}

#[test]
fn nested_dicts_are_joined_with_dots() {
    let weights = read(&fixture("nested.pth")).unwrap();
    assert_eq!(weights.keys().collect::<Vec<_>>(), ["bias", "decoder.conv.weight", "encoder.conv.weight"]);
}

#[test]
fn a_pickle_that_wants_to_run_something_is_refused_by_name() {
    for (name, global) in [
        ("evil_zip.pth", "posix.system"),
        ("evil_legacy.pth", "posix.system"),
        ("module.pth", "torch.nn.modules.linear.Linear"),
    ] {
        let error = read(&fixture(name)).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(&format!("`{global}`")), "{error}");
    }
    // A storage that is itself a pickle, which PyTorch would load in turn.
    let pickle = b"\x80\x02ctorch.storage\n_load_from_bytes\n.".as_slice();
    assert!(matches!(machine(pickle), Err(WeightsError::ForbiddenGlobal { .. })));
}

#[test]
fn other_files_are_told_apart() {
    for bytes in [&b""[..], b"text", b"\x89PNG\r\n\x1a\n", b"\x80\x02K\x01."] {
        assert!(matches!(from_bytes(bytes), Err(WeightsError::UnknownFormat)), "{bytes:?}");
    }
    let error = read(Path::new("no/such/file.pth")).unwrap_err().to_string();
    assert!(error.starts_with("cannot read no/such/file.pth: "), "{error}");
    assert!(
        matches!(read(&fixture("empty.pth")), Err(WeightsError::InFile { source, .. }) if matches!(*source, WeightsError::NoTensors))
    );
}

#[test]
fn every_truncation_is_an_error() {
    for name in ["zip.pth", "legacy.pth"] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        for length in 0..bytes.len() {
            assert!(from_bytes(&bytes[..length]).is_err(), "{name} cut to {length} bytes");
        }
    }
}

/// The ends of the pickles in a file before PyTorch 1.6.
fn ends_of_pickles(bytes: &[u8]) -> [usize; 5] {
    let mut at = 0;
    std::array::from_fn(|_| {
        at += machine(&bytes[at..]).unwrap().length;
        at
    })
}

#[test]
fn a_storage_has_no_more_than_the_file_holds_of_it() {
    let good = std::fs::read(fixture("legacy.pth")).unwrap();
    let [.., storages] = ends_of_pickles(&good);
    let count = i64::from_le_bytes(good[storages..storages + 8].try_into().unwrap());
    for wrong in [-1, i64::MIN, i64::MAX, i64::MAX / 4 + 1, good.len() as i64] {
        let mut bytes = good.clone();
        bytes[storages..storages + 8].copy_from_slice(&wrong.to_le_bytes());
        let error = from_bytes(&bytes).unwrap_err().to_string();
        assert!(error.contains("it ends within the storage"), "{wrong}: {error}");
    }
    // One element less: the next count is read from the middle of this storage.
    let mut bytes = good.clone();
    bytes[storages..storages + 8].copy_from_slice(&(count - 1).to_le_bytes());
    assert!(matches!(from_bytes(&bytes), Err(WeightsError::Torch { .. })));
    for end in [storages, storages + 7] {
        let error = from_bytes(&good[..end]).unwrap_err().to_string();
        assert!(error.contains("it ends before the storage"), "{error}");
    }
}

#[test]
fn the_pickles_before_the_tensors_are_checked() {
    let good = std::fs::read(fixture("legacy.pth")).unwrap();
    let [magic, protocol, _, object, keys] = ends_of_pickles(&good);
    let with = |part: std::ops::Range<usize>, pickle: &[u8]| {
        let mut bytes = good.clone();
        bytes.splice(part, pickle.iter().copied());
        from_bytes(&bytes).unwrap_err().to_string()
    };
    assert!(with(magic..protocol, b"\x80\x02M\xea\x03.").contains("its protocol is not 1001"));
    assert!(with(object..keys, b"\x80\x02K\x01.").contains("the list of storages is malformed"));
    assert!(with(object..keys, b"\x80\x02]K\x01a.").contains("the list of storages is malformed"));
    let unknown = with(object..keys, b"\x80\x02]X\x01\x00\x00\x00xa.");
    assert!(unknown.contains("the storage x belongs to no tensor"), "{unknown}");
    // Fewer storages than the tensors need.
    assert!(with(object..keys, b"\x80\x02].").contains("is missing"));
}

/// Two pickles that would exhaust a careless interpreter.
#[test]
fn deep_and_wide_pickles_end() {
    let machine = |pickle: &[u8]| machine(pickle).map(drop);
    let mut deep = vec![b']'];
    deep.extend(std::iter::repeat_n(0x85, 200_000));
    deep.push(b'.');
    machine(&deep).unwrap();
    // A dict that holds itself.
    machine(b"}q\x00X\x01\x00\x00\x00ah\x00s.").unwrap();
    for bad in
        [&b"."[..], b"0.", b"a.", b"(.", b"t.", b"h\x00.", b"\x80\x09.", b"(K\x01u.", b"}(K\x01u.", b"K\x01(0.", b"R."]
    {
        assert!(matches!(machine(bad), Err(WeightsError::Pickle { .. })), "{bad:?}");
    }
}

/// A dict in a dict in a dict, each twice: an exponential number of paths.
#[test]
fn shared_dicts_do_not_multiply_without_end() {
    let mut pickle = b"\x80\x02}q\x00".to_vec();
    for level in 0..40_u8 {
        let inner = level;
        pickle.extend_from_slice(b"}");
        for key in [b"a", b"b"] {
            pickle.extend_from_slice(b"X\x01\x00\x00\x00");
            pickle.extend_from_slice(key);
            pickle.extend_from_slice(&[b'h', inner]);
            pickle.push(b's');
        }
        pickle.extend_from_slice(&[b'q', level + 1]);
    }
    pickle.push(b'.');
    let loaded = machine(&pickle).unwrap();
    let found = super::torch::named_tensors(&loaded, &mut Budget::of_file(1 << 20));
    assert!(matches!(found, Err(WeightsError::Torch { .. })), "{found:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damage_is_an_error_or_other_tensors_but_never_a_panic(
        which in 0..4_usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let name = ["zip.pth", "legacy.pth", "wrapped.pth", "nested.pth"][which];
        let mut bytes = std::fs::read(fixture(name)).unwrap();
        for (index, value) in changes {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(weights) = from_bytes(&bytes) {
            for tensor in weights.values() {
                tensor.to_f32().unwrap();
            }
        }
    }

    /// Random opcodes reach states that damage to a valid file does not.
    #[test]
    fn random_programs_end(program in proptest::collection::vec(
        prop_oneof![
            proptest::sample::select(b"(.012NJKMGXUCBht]lae}dsuRbQqhjr)\x80\x81\x85\x86\x87\x88\x8a\x8c\x8f\x90\x93\x94\x95".to_vec()),
            any::<u8>(),
        ],
        0..200,
    )) {
        // Either result is fine.
        let _ = machine(&program);
    }
}
