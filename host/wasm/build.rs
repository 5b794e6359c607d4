//! Builds the zoo: the text of every animal is put into the frame they share and becomes a
//! component, and what their comments say becomes a table.
//!
//! An animal's file begins with what it is: `;; ROW: what it tries`, then `;; ends: HOW, WORDS`,
//! `;; granted: GRANT` and `;; calls: NUMBER` where they are needed. A line `@hole` begins what goes
//! into the frame's line of the same name; a line `@NUMBER text` is the text so many times.

use std::{collections::HashMap, env, error::Error, fmt::Write, fs, path::Path};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=zoo");
    println!("cargo::rerun-if-changed=build.rs");
    let out = env::var("OUT_DIR")?;
    let frame = fs::read_to_string("zoo/frame.wat")?;
    let mut files = fs::read_dir("zoo")?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|it| it == "wat"));
    files.retain(|path| !path.ends_with("frame.wat"));
    files.sort();
    let mut animals = Vec::new();
    for path in &files {
        let wrong = |error: Box<dyn Error>| format!("{}: {error}", path.display());
        let text = fs::read_to_string(path)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let component = component(&frame, &text).map_err(wrong)?;
        let target = Path::new(&out).join(format!("{name}.wasm"));
        fs::write(&target, component)?;
        animals.extend(entry(&name, &text, &target).map_err(wrong)?);
    }
    animals.sort();
    let table = format!("&[\n{}]", animals.concat());
    fs::write(Path::new(&out).join("animals.rs"), table)?;
    Ok(())
}

/// The frame with its holes filled, as a component.
fn component(frame: &str, text: &str) -> Result<Vec<u8>> {
    let mut holes: HashMap<&str, String> = HashMap::new();
    let mut hole = None;
    for line in text.lines().filter(|line| !line.starts_with(";;")) {
        match line.strip_prefix('@').map(|rest| rest.split_once(' ')) {
            None => writeln!(filled(&mut holes, hole)?, "{line}")?,
            Some(Some((times, text))) => {
                let text = format!("{text}\n").repeat(times.parse()?);
                filled(&mut holes, hole)?.push_str(&text);
            }
            Some(None) => hole = line.strip_prefix('@'),
        }
    }
    let mut whole = String::new();
    for line in frame.lines() {
        match line.strip_prefix('@') {
            Some(name) => whole.push_str(&holes.remove(name).unwrap_or_default()),
            None => writeln!(whole, "{line}")?,
        }
    }
    match holes.keys().next() {
        Some(name) => Err(format!("the frame has no hole `@{name}`").into()),
        None => Ok(wat::parse_str(&whole).map_err(|error| format!("{error}\nin:\n{whole}"))?),
    }
}

fn filled<'a, 't>(
    holes: &'a mut HashMap<&'t str, String>,
    hole: Option<&'t str>,
) -> Result<&'a mut String> {
    let hole = hole.ok_or("text before the first `@hole`")?;
    Ok(holes.entry(hole).or_default())
}

/// The line of the table; none for those that are no animals of the zoo.
fn entry(name: &str, text: &str, component: &Path) -> Result<Option<String>> {
    let note = |key: &str| {
        let prefix = format!(";; {key}: ");
        text.lines().find_map(|line| line.strip_prefix(&prefix))
    };
    let first = text.lines().next().unwrap_or_default();
    let (row, tries) = match first.strip_prefix(";; ").and_then(|it| it.split_once(": ")) {
        Some((row, tries)) if row.starts_with('F') => (row, tries),
        _ => return Ok(None),
    };
    let ends = note("ends").ok_or("it does not say how it ends")?;
    let (how, words) = ends.split_once(", ").unwrap_or((ends, ""));
    let how = match how {
        "refused" => "Refused",
        "limit" => "Limit",
        "trap" => "Trap",
        "contract" => "Contract",
        "harmless" => "Harmless",
        other => return Err(format!("an end `{other}` is not known").into()),
    };
    let granted = note("granted").unwrap_or_default();
    let calls: u32 = note("calls").map_or(Ok(1), str::parse)?;
    Ok(Some(format!(
        "Animal {{ row: {row:?}, name: {name:?}, tries: {tries:?}, ends: Ends::{how}({words:?}), \
         granted: {granted:?}, calls: {calls}, component: || Cow::Borrowed(include_bytes!({component:?})) }},\n"
    )))
}
