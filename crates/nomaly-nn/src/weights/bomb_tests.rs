//! Small checkpoints that would take gigabytes, or quadratic time.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::{WeightsError, from_bytes};

/// A checkpoint with PyTorch's member names, but compressed.
fn archive(pickle: &[u8], storages: &[&[u8]]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    writer.start_file("a/data.pkl", options).unwrap();
    writer.write_all(pickle).unwrap();
    for (key, storage) in storages.iter().enumerate() {
        writer.start_file(format!("a/data/{key}"), options).unwrap();
        writer.write_all(storage).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Opcodes that push a text.
fn text(text: &str) -> Vec<u8> {
    [b"X", (text.len() as u32).to_le_bytes().as_slice(), text.as_bytes()].concat()
}

/// Opcodes that push a tensor of `shape` with `strides` over the storage `key` of `length` numbers.
fn tensor(key: usize, length: u32, shape: &[u32], strides: &[u32]) -> Vec<u8> {
    let int = |value: u32| [b"J", value.to_le_bytes().as_slice()].concat();
    let tuple =
        |values: &[u32]| [b"(".to_vec(), values.iter().flat_map(|&value| int(value)).collect(), b"t".to_vec()].concat();
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text(&key.to_string()),
        text("cpu"),
        int(length),
        b"tQK\0".to_vec(),
        tuple(shape),
        tuple(strides),
        b"\x89)tR".to_vec(),
    ]
    .concat()
}

/// A dict of named tensors.
fn dict(items: &[(String, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<u8> = items.iter().flat_map(|(name, tensor)| [text(name), tensor.clone()].concat()).collect();
    [b"\x80\x02}(".as_slice(), &items, b"u."].concat()
}

/// The error of a file, which must come quickly: the slowest of these files took minutes.
#[track_caller]
fn refusal(bytes: &[u8]) -> WeightsError {
    from_bytes(bytes).expect_err("it asks for too much")
}

#[test]
fn an_honest_checkpoint_of_this_form_is_read() {
    let one = dict(&[("module.module.w".to_owned(), tensor(0, 2, &[2], &[1]))]);
    let weights = from_bytes(&archive(&one, &[&[0; 8]])).unwrap();
    assert_eq!(weights.keys().collect::<Vec<_>>(), ["w"]);
    assert_eq!(weights["w"].to_f32().unwrap(), [0.0, 0.0]);
}

#[test]
fn containers_without_end_are_refused() {
    let lists = [b"\x80\x02".as_slice(), &vec![b']'; 4 << 20], b"."].concat();
    let dicts = [b"\x80\x02".as_slice(), &vec![b'}'; 4 << 20], b"."].concat();
    let marks = [b"\x80\x02".as_slice(), &vec![b'('; 4 << 20], b"."].concat();
    let memo = [b"\x80\x02N".as_slice(), &vec![0x94; 4 << 20], b"."].concat();
    let copies = [b"\x80\x02N".as_slice(), &vec![b'2'; 4 << 20], b"."].concat();
    for pickle in [lists, dicts, marks, memo, copies] {
        let bytes = archive(&pickle, &[]);
        assert!(bytes.len() < 10_000);
        assert!(matches!(refusal(&bytes), WeightsError::Memory { .. }));
    }
}

#[test]
fn a_pickle_larger_than_the_budget_is_not_unpacked() {
    let bytes = archive(&vec![0; 60 << 20], &[]);
    assert!(matches!(refusal(&bytes), WeightsError::Memory { limit } if limit < 20 << 20));
}

#[test]
fn long_names_are_refused() {
    // Removing each `module.` one by one took quadratic time.
    let repeated = dict(&[(format!("{}x", "module.".repeat(1 << 15)), tensor(0, 1, &[1], &[1]))]);
    // A long name before each of many short ones.
    let shared = [
        b"\x80\x02}".to_vec(),
        text(&"k".repeat(1 << 20)),
        b"q\x01}(".to_vec(),
        (0..200).flat_map(|number| [text(&number.to_string()), tensor(0, 1, &[1], &[1])].concat()).collect(),
        b"us.".to_vec(),
    ]
    .concat();
    for pickle in [repeated, shared] {
        let error = refusal(&archive(&pickle, &[&[0; 4]]));
        assert!(matches!(&error, WeightsError::Torch { reason } if reason.contains("a name has")), "{error}");
    }
    let global = [b"\x80\x02c".as_slice(), &vec![b'x'; 1 << 20], b"\ny\n."].concat();
    assert!(matches!(refusal(&archive(&global, &[])), WeightsError::Pickle { .. }));
}

#[test]
fn tensors_share_one_budget() {
    // Each storage alone would be allowed.
    let items: Vec<(String, Vec<u8>)> =
        (0..100).map(|key| (format!("w{key}"), tensor(key, 200_000, &[200_000], &[1]))).collect();
    let storage = vec![0; 800_000];
    let many = archive(&dict(&items), &vec![storage.as_slice(); 100]);
    assert!(matches!(refusal(&many), WeightsError::Memory { .. }));

    // One number viewed as many.
    let wide = archive(&dict(&[("w".to_owned(), tensor(0, 1, &[1 << 29], &[0]))]), &[&[0; 4]]);
    assert!(matches!(refusal(&wide), WeightsError::Memory { .. }));
    let items: Vec<(String, Vec<u8>)> =
        (0..100).map(|name| (format!("w{name}"), tensor(0, 1, &[1 << 20], &[0]))).collect();
    assert!(matches!(refusal(&archive(&dict(&items), &[&[0; 4]])), WeightsError::Memory { .. }));

    let overflow = archive(&dict(&[("w".to_owned(), tensor(0, 1, &[1 << 30, 1 << 30, 1 << 30], &[0; 3]))]), &[&[0; 4]]);
    assert!(matches!(refusal(&overflow), WeightsError::Torch { .. }));
}
