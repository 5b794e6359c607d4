use super::*;

fn line(measurement: &str, tags: &[(&str, &str)], body: &str) -> Result<String, String> {
    write(measurement, tags.iter().copied(), body, 7)
}

#[test]
fn members_become_fields_of_their_types() {
    let body = r#"{"i": 1, "f": -2.5e3, "t": true, "s": "a\"b\\c\nd", "n": null, "o": {"x": [1]}}"#;
    let expected = r#"m i=1,f=-2.5e3,t=true,s="a\"b\\c\nd",o="{\"x\": [1]}" 7"#;
    assert_eq!(line("m", &[], body).unwrap(), expected);
}

#[test]
fn what_has_a_meaning_in_a_line_is_escaped() {
    let tags = [
        ("a b", "c,d=e"),
        ("none", ""),
        ("end", "x\\"),
        ("two", "1\n2"),
    ];
    let expected = r"m\ m\,m,a\ b=c\,d\=e,end=x,two=1\ 2 k\ \=1=1 7";
    assert_eq!(line("m m,m", &tags, r#"{"k =1":1}"#).unwrap(), expected);
}

#[test]
fn what_is_no_point_is_refused() {
    for body in ["", "1", "[1]", "text"] {
        assert_eq!(
            line("m", &[], body).unwrap_err(),
            "the body is not a JSON object"
        );
    }
    for body in ["{}", r#"{"a":null}"#, r#"{"":1}"#] {
        assert_eq!(line("m", &[], body).unwrap_err(), "the body has no field");
    }
    for measurement in ["", "#m"] {
        assert!(
            line(measurement, &[], r#"{"a":1}"#)
                .unwrap_err()
                .contains("no measurement")
        );
    }
}
