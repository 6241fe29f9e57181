//! What is written from an input must be good: XML that parses, text without control characters.

/// SVG or a page; it is XML.
pub fn xml(what: &str, text: &str) {
    if let Err(error) = roxmltree::Document::parse(text) {
        panic!("{what} is no XML: {error}");
    }
    plain(what, text);
}

/// A page; it is XML but for elements that need no end, and two characters that are no characters.
pub fn page(what: &str, html: &str) {
    let mut closed = html
        .replace("<!DOCTYPE html>", "")
        .replace("<br>", "<br/>")
        .replace(['\u{fffe}', '\u{ffff}'], " ")
        .replace("<details open>", "<details open=\"\">");
    let mut at = 0;
    while let Some(found) = closed[at..].find("<meta ") {
        let end = closed[at + found..]
            .find('>')
            .map_or(closed.len(), |i| at + found + i);
        closed.insert(end, '/');
        at = end;
    }
    xml(what, &closed);
}

/// No control characters but the ends of lines, also DOS's, and tabulators.
pub fn plain(what: &str, text: &str) {
    let text = text.replace("\r\n", "\n");
    let control = |c: &char| c.is_control() && !"\n\t".contains(*c);
    if let Some(c) = text.chars().find(control) {
        panic!("{what} has the control character {:?}", c);
    }
}
