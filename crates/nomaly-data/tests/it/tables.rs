//! Tables of numbers, good and bad.

use std::path::{Path, PathBuf};

use nomaly_data::tables::{ReadOptions, Table, is_table, read};

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn parse(name: &str, bytes: impl AsRef<[u8]>, options: &ReadOptions) -> Result<Table, String> {
    let folder = tempfile::tempdir().unwrap();
    let result = read(&write(folder.path(), name, bytes), options);
    result.map_err(|error| error.to_string().replace(&folder.path().display().to_string(), ""))
}

fn with(label: &str, ignore: &[&str]) -> ReadOptions {
    let label = Some(label.to_owned()).filter(|label| !label.is_empty());
    ReadOptions { label, ignore: ignore.iter().map(|name| (*name).to_owned()).collect(), ..ReadOptions::default() }
}

/// A NumPy array with `descr`, in version 1 of the format.
fn npy(descr: &str, fortran: bool, shape: &str, numbers: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
    header.extend(std::iter::repeat_n(' ', 63 - (header.len() + 10) % 64));
    header.push('\n');
    let size = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00", &size[..], header.as_bytes(), numbers].concat()
}

#[test]
fn separators_and_names_are_found() {
    let none = ReadOptions::default();
    for (text, names) in [
        ("a,b\n1,2\n3,-4.5e1\n", Some(["a", "b"])),
        ("a;b\n1;2\n3;-45\n", Some(["a", "b"])),
        ("\"a\"\t\"b\"\r\n1\t2\r\n3\t\"-45\"\r\n", Some(["a", "b"])),
        ("\u{feff}a, b\n 1, 2\n3,-45", Some(["a", "b"])),
        ("1,2\n3,-45\n", None),
    ] {
        let table = parse("t.csv", text, &none).unwrap();
        assert_eq!(table.rows, ndarray::array![[1.0, 2.0], [3.0, -45.0]], "{text:?}");
        let found = table.columns.as_ref().map(|names| names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(found, names.map(|names| names.to_vec()), "{text:?}");
    }
    let quoted = parse("t.csv", "\"width, mm\",b\n1,2\n", &none).unwrap();
    assert_eq!(quoted.column_name(0), "width, mm");
    assert_eq!(parse("t.csv", "7\n8\n", &none).unwrap().rows.dim(), (2, 1));
}

#[test]
fn columns_have_the_roles_that_were_asked_for() {
    let text = "id,a,state,b\nx,1,good,NA\ny,2,bad,\n";
    let options = ReadOptions { id: Some("id".to_owned()), ..with("state", &["a"]) };
    let table = parse("t.csv", text, &options).unwrap();
    assert_eq!((table.columns, table.rows.dim()), (Some(vec!["b".to_owned()]), (2, 1)));
    assert!(table.rows.iter().all(|value| value.is_nan()));
    assert_eq!(table.labels.unwrap(), ["good", "bad"]);
    assert_eq!(table.ids.unwrap(), ["x", "y"]);
    // Names may look like numbers.
    let table = parse("t.csv", "0,1,state\n5,6,good\n", &with("state", &[])).unwrap();
    assert_eq!((table.columns.unwrap(), table.rows), (vec!["0".into(), "1".into()], ndarray::array![[5.0, 6.0]]));
    // Without a header line, columns have numbers; text in a label does not make a header line.
    let table = parse("t.csv", "1,good\n2,bad\n", &with("2", &[])).unwrap();
    assert_eq!((table.rows.nrows(), table.labels.unwrap().len(), table.columns), (2, 2, None));
}

#[test]
fn what_cannot_be_used_is_named_with_its_place() {
    let none = ReadOptions::default();
    for (text, options, told) in [
        ("a,colour\n1,2\n2,red\n", &none, "line 3, column `colour`: `red` is not a number; `--ignore colour`"),
        ("a;b\n1;2\n1,5;2\n", &none, "line 3, column `a`: `1,5` has a decimal comma; write it with a point"),
        ("a,b\n1,2\n3\n", &none, "line 3 has 1 fields, and the first line has 2"),
        ("a,a\n1,2\n", &none, "two columns are called `a`"),
        (",a\n0,2\n", &none, "`--ignore 1` leaves it out"),
        ("a,b\n", &none, "holds no rows"),
        ("", &none, "holds no rows"),
        ("width,b\n1,2\n", &with("", &["widht"]), "did you mean `width`?"),
        ("a,b\n1,2\n", &with("a", &["a"]), "two roles"),
        ("a\n1\n", &with("", &["a"]), "no column is left"),
    ] {
        let message = parse("t.csv", text, options).unwrap_err();
        assert!(message.contains(told), "{text:?}: {message}");
    }
    assert!(parse("t.csv", b"a,b\xff\n1,2\n", &none).unwrap_err().contains("not UTF-8"));
    assert!(read(Path::new("no/such.csv"), &none).unwrap_err().to_string().contains("no/such.csv"));
    assert!(parse("t.csv", ",a\n0,2\n", &with("", &["1"])).is_ok());
}

#[test]
fn arrays_of_every_type_and_order_are_read() {
    let expected = ndarray::array![[1.0f32, 2.0, 3.0], [0.0, 5.0, 6.0]];
    let bytes =
        |order: &[i16], write: &dyn Fn(i16) -> Vec<u8>| order.iter().flat_map(|v| write(*v)).collect::<Vec<_>>();
    let (c, fortran) = ([1, 2, 3, 0, 5, 6], [1, 0, 2, 5, 3, 6]);
    for (descr, write) in [
        ("<f4", &(|v: i16| f32::from(v).to_le_bytes().to_vec()) as &dyn Fn(i16) -> Vec<u8>),
        (">f4", &|v| f32::from(v).to_be_bytes().to_vec()),
        ("<f8", &|v| f64::from(v).to_le_bytes().to_vec()),
        (">i2", &|v| v.to_be_bytes().to_vec()),
        ("<i8", &|v| i64::from(v).to_le_bytes().to_vec()),
        ("|u1", &|v| vec![v as u8]),
        (">u4", &|v| (v as u32).to_be_bytes().to_vec()),
    ] {
        for (in_fortran, order) in [(false, c), (true, fortran)] {
            let file = npy(descr, in_fortran, "(2, 3)", &bytes(&order, write));
            let table = parse("t.npy", file, &ReadOptions::default()).unwrap();
            assert_eq!((table.rows, table.columns), (expected.clone(), None), "{descr} {in_fortran}");
        }
    }
    let negative = parse("t.npy", npy("|i1", false, "(1, 2)", &[0xff, 0x80]), &ReadOptions::default()).unwrap();
    assert_eq!(negative.rows, ndarray::array![[-1.0, -128.0]]);
    let labelled = parse("t.npy", npy("|b1", false, "(2, 2)", &[1, 0, 0, 1]), &with("2", &[])).unwrap();
    assert_eq!(
        (labelled.rows, labelled.labels.unwrap()),
        (ndarray::array![[1.0], [0.0]], vec!["0".into(), "1".into()])
    );
}

#[test]
fn hostile_arrays_are_refused() {
    let refused = |bytes: &[u8]| parse("t.npy", bytes, &ReadOptions::default()).unwrap_err();
    let good = npy("|u1", false, "(2, 2)", &[1, 2, 3, 4]);
    for length in 0..good.len() {
        refused(&good[..length]);
    }
    assert!(refused(&[&good[..], &[5]].concat()).contains("5 bytes of numbers"));
    assert!(refused(&npy("|u1", false, "(4,)", &[1, 2, 3, 4])).contains("1 axes"));
    assert!(refused(&npy("|u1", false, "(0, 4)", &[])).contains("holds no rows"));
    // Zero rows may have any number of columns.
    for order in [false, true] {
        for shape in ["(0, 17592186044416)", "(0, 2147483648)", "(18446744073709551615, 0)", "(0, 0)"] {
            assert!(refused(&npy("<f8", order, shape, &[])).contains("holds no rows"), "{shape}");
        }
    }
    assert!(refused(&npy("<f8", false, "(1, 17592186044416)", &[])).contains("0 bytes of numbers"));
    let huge = refused(&npy("|u1", false, "(18446744073709551615, 4)", &[1]));
    assert!(huge.contains("1 bytes of numbers"), "{huge}");
    for descr in ["|O", "<c8"] {
        let message = refused(&npy(descr, false, "(2, 2)", &[1, 2, 3, 4]));
        assert!(message.contains(&format!("`{descr}`")) && !message.contains("damaged"), "{message}");
    }
    let mut version = good.clone();
    version[6] = 9;
    assert!(refused(&version).contains("version 9"));
}

#[test]
fn tables_are_told_by_their_extension() {
    assert!(["a.csv", "b.TSV", "c/d.npy", "e.parquet"].iter().all(|path| is_table(Path::new(path))));
    assert!(!["a.png", "csv", "folder"].iter().any(|path| is_table(Path::new(path))));
}
