//! Words of Python.

/// Names that an attribute of `torch.nn.Module` has already, of those that don't begin with an underscore (torch 2.13).
/// A layer can be called so, but it is not found as an attribute.
const TAKEN: [&str; 60] = [
    "T_destination",
    "add_module",
    "append",
    "apply",
    "bfloat16",
    "buffers",
    "call_super_init",
    "children",
    "compile",
    "cpu",
    "cuda",
    "double",
    "dropped",
    "drop_path_rate",
    "dump_patches",
    "eval",
    "extend",
    "extra_repr",
    "float",
    "forward",
    "get_buffer",
    "get_extra_state",
    "get_parameter",
    "get_submodule",
    "half",
    "insert",
    "ipu",
    "load_state_dict",
    "modules",
    "mtia",
    "named_buffers",
    "named_children",
    "named_modules",
    "named_parameters",
    "parameters",
    "pop",
    "register_backward_hook",
    "register_buffer",
    "register_forward_hook",
    "register_forward_pre_hook",
    "register_full_backward_hook",
    "register_full_backward_pre_hook",
    "register_load_state_dict_post_hook",
    "register_load_state_dict_pre_hook",
    "register_module",
    "register_parameter",
    "register_state_dict_post_hook",
    "register_state_dict_pre_hook",
    "requires_grad_",
    "set_extra_state",
    "set_submodule",
    "share_memory",
    "state_dict",
    "to",
    "to_empty",
    "train",
    "training",
    "type",
    "xpu",
    "zero_grad",
];

/// What Python reads as something else than a name.
const KEYWORDS: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue",
    "def", "del", "elif", "else", "except", "finally", "for", "from", "global", "if", "import",
    "in", "is", "lambda", "nonlocal", "not", "or", "pass", "raise", "return", "try", "while",
    "with", "yield",
];

/// Whether a layer of this name can be written as an attribute.
pub(super) fn is_attribute(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !KEYWORDS.contains(&name)
        && !TAKEN.contains(&name)
        && !name.starts_with("run_")
}

/// A part of a name: letters, digits and underscores of a text.
pub(super) fn word(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    text.chars().map(plain).collect()
}

/// A text as a literal, in ASCII.
pub(super) fn quoted(text: &str) -> String {
    let mark = match text.contains('"') && !text.contains('\'') {
        true => '\'',
        false => '"',
    };
    let mut literal = String::from(mark);
    for c in text.chars() {
        match c {
            '"' if mark == '"' => literal.push_str("\\\""),
            '\\' => literal.push_str("\\\\"),
            ' '..='~' => literal.push(c),
            _ if u32::from(c) <= 0xffff => literal.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => literal.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    literal.push(mark);
    literal
}

/// Values as a tuple.
pub(super) fn tuple(values: &[String]) -> String {
    match values {
        [one] => format!("({one},)"),
        more => format!("({})", more.join(", ")),
    }
}

/// A number for both axes, or one for each.
pub(super) fn pair([a, b]: [i64; 2]) -> String {
    match a == b {
        true => a.to_string(),
        false => format!("({a}, {b})"),
    }
}

/// A number with a fraction, as Python reads it.
pub(super) fn number(x: f64) -> String {
    match x {
        _ if x.is_nan() => "float(\"nan\")".into(),
        _ if x.is_infinite() && x > 0.0 => "float(\"inf\")".into(),
        _ if x.is_infinite() => "-float(\"inf\")".into(),
        _ => format!("{x:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_ascii_and_can_not_end_their_literals() {
        assert_eq!(quoted("a'\"\\\n"), r#""a'\"\\\u000a""#);
        assert_eq!(quoted("{\"a\": 1}"), r#"'{"a": 1}'"#);
        assert_eq!(
            quoted("é\u{202e}\u{1f600}"),
            "\"\\u00e9\\u202e\\U0001f600\""
        );
    }

    #[test]
    fn attributes_are_names_that_nobody_else_has() {
        for name in ["stem", "node1", "sep_conv_3x3", "Of"] {
            assert!(is_attribute(name), "{name}");
        }
        for name in [
            "",
            "0",
            "modules",
            "train",
            "for",
            "a-b",
            "_x",
            "é",
            "run_cells",
            "x y",
        ] {
            assert!(!is_attribute(name), "{name}");
        }
    }

    #[test]
    fn numbers_are_python_numbers() {
        assert_eq!([0.1, 1e-5, 2.0].map(number), ["0.1", "1e-5", "2.0"]);
        assert_eq!(number(f64::NEG_INFINITY), "-float(\"inf\")");
        assert_eq!((pair([3, 3]), pair([1, 7])), ("3".into(), "(1, 7)".into()));
        assert_eq!(tuple(&["1".into()]), "(1,)");
    }
}
