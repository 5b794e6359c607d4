use super::*;

#[test]
fn metadata_is_read_as_it_was_written() {
    let mut meta = Meta::new();
    meta.set("levada", vec![7; 300]);
    meta.set("empty", Vec::new());
    meta.set("levada", vec![8; 300]);
    let mut out = vec![0xee];
    meta.write(&mut out);
    let message = Bytes::from(out);
    let mut reader = Reader::new(&message, 1);
    let read = reader.meta("test").unwrap();
    assert!(reader.is_at_end());
    assert_eq!(read.get("levada").unwrap(), &vec![8; 300]);
    assert_eq!(read.get("empty").unwrap().len(), 0);
    assert_eq!(read.get("none"), None);
}
