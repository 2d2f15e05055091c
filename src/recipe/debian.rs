//! `base.debian`: packages, by name.

use super::context::Context;
use super::model::Base;
use super::reader::{Table, Text, Value};
use super::words;
use crate::base::debian::{Debian, Package, SourceRequest, Variant};

const FORM: &str = "write `debian = { suite = \"bookworm\", include = [\"gcc\"] }`";

/// Reads the table.
pub fn read(value: &Value<'_>) -> Option<Debian> {
    let cx = value.cx;
    let mut table = value.table(FORM)?;
    let suite = table.required("suite", "name the release: `suite = \"bookworm\"`");
    let components = table.take("components");
    let variant = table.string("variant");
    let (include, exclude) = (table.take("include"), table.take("exclude"));
    table.finish();

    let suites = suite.as_ref().map_or_else(|| Some(Vec::new()), |suite| suites(suite));
    let components = components.as_ref().map_or_else(|| Some(vec!["main".to_string()]), self::components);
    let variant = variant.map_or(Some(Variant::Minbase), |variant| self::variant(cx, &variant));
    let wanted = include.as_ref().map_or_else(|| Some(Vec::new()), |list| packages(list, true));
    let exclude = exclude.as_ref().map_or_else(|| Some(Vec::new()), |list| packages(list, false));
    let (wanted, exclude) = (wanted?, exclude?);
    if let Some((text, name)) =
        wanted.iter().find(|(_, wanted)| exclude.iter().any(|(_, name)| name == name_of(wanted)))
    {
        let message = format!("`{}` is included and excluded", name_of(name));
        cx.error(&text.span, message, "take it out of one of the two");
    }
    if variant == Some(Variant::Custom) && wanted.is_empty() {
        let hint = "name the packages: `include = [\"…\"]`; or take another variant";
        cx.error(&value.span, "the variant `custom` without `include` installs nothing", hint);
    }
    let sorted = |list: Vec<(Text, String)>| {
        let mut names: Vec<String> = list.into_iter().map(|(_, name)| name).collect();
        names.sort();
        names
    };
    let (include, exclude) = (sorted(wanted), sorted(exclude));
    Some(Debian { suites: suites?, components: components?, variant: variant?, include, exclude })
}

/// A source package: its name is the value, and `table` may say more. Where nothing else is said it is looked for
/// where the base is from.
pub fn source(value: &Value<'_>, table: &mut Table<'_>, base: &Base) -> Option<SourceRequest> {
    let cx = value.cx;
    let (suite, components) = (table.take("suite"), table.take("components"));
    let version = table.string("version").map(|text| (cx.expand(&text), text));
    let of_base = match base {
        Base::Debian(debian) => Some(debian),
        _ => None,
    };
    let suites = match (&suite, of_base) {
        (Some(suite), _) => suites(suite),
        (None, Some(debian)) => Some(debian.suites.clone()),
        (None, None) => {
            table.missing(["suite"], "`suite` is missing", "name the release: `suite = \"bookworm\"`");
            None
        }
    };
    let components = match (&components, of_base) {
        (Some(components), _) => self::components(components),
        (None, Some(debian)) => Some(debian.components.clone()),
        (None, None) => Some(vec!["main".to_string()]),
    };
    let text = value.string()?;
    let name = cx.expand(&text)?;
    if !Package::is_name(&name) {
        let hint = "give the name of a source package, such as `zlib`";
        cx.error(&text.span, format!("`{name}` cannot be the name of a package"), hint);
    }
    let version = match version {
        Some((version, text)) => {
            let version = version?;
            if !Package::is_version(&version) {
                let message = format!("`{version}` cannot be the version of a package");
                cx.error(&text.span, message, "write it with its revision: `version = \"1:1.2.13.dfsg-1\"`");
            }
            Some(version)
        }
        None => None,
    };
    Some(SourceRequest { name, version, suites: suites?, components: components? })
}

/// `NAME` of `NAME=VERSION`.
fn name_of(wanted: &str) -> &str {
    wanted.split('=').next().unwrap_or_default()
}

fn suites(value: &Value<'_>) -> Option<Vec<String>> {
    let cx = value.cx;
    let texts = if value.is_array() { value.strings()? } else { vec![value.string()?] };
    if texts.is_empty() {
        cx.error(&value.span, "`suite` names nothing", "name the release: `suite = \"bookworm\"`");
    }
    each(cx, &texts, |text, suite| {
        if Debian::is_suite(suite) {
            return true;
        }
        let hint = "give its name below `dists/`, such as `bookworm` or `bookworm-security`";
        cx.error(&text.span, format!("`{suite}` cannot be the name of a suite"), hint);
        false
    })
    .map(|suites| suites.into_iter().map(|(_, suite)| suite).collect())
}

fn components(value: &Value<'_>) -> Option<Vec<String>> {
    let cx = value.cx;
    let texts = value.strings()?;
    if texts.is_empty() {
        cx.error(&value.span, "`components` names nothing", "leave it out for `[\"main\"]`");
    }
    each(cx, &texts, |text, component| {
        if Debian::is_suite(component) {
            return true;
        }
        let hint = "the usual ones are `main`, `contrib`, `non-free` and `non-free-firmware`";
        cx.error(&text.span, format!("`{component}` cannot be the name of a component"), hint);
        false
    })
    .map(|components| components.into_iter().map(|(_, component)| component).collect())
}

fn variant(cx: &Context<'_>, text: &Text) -> Option<Variant> {
    let name = cx.expand(text)?;
    let variant = Variant::named(&name);
    if variant.is_none() {
        let known = Variant::ALL.map(Variant::name);
        let hint = words::did_you_mean(&name, known)
            .unwrap_or_else(|| format!("it is one of {}", words::list(&known)));
        cx.error(&text.span, format!("`{name}` is not a variant"), hint);
    }
    variant
}

/// A list of names of packages, each perhaps with a version.
fn packages(value: &Value<'_>, with_version: bool) -> Option<Vec<(Text, String)>> {
    let cx = value.cx;
    let texts = value.strings()?;
    let names = each(cx, &texts, |text, wanted| {
        let (name, version) = match wanted.split_once('=') {
            Some((name, version)) => (name, Some(version)),
            None => (wanted, None),
        };
        let (message, hint) = match version {
            _ if !Package::is_name(name) => {
                let hint = "a name has lower-case letters, digits and `+-.`, no architecture and no pattern";
                (format!("`{name}` cannot be the name of a package"), hint)
            }
            Some(_) if !with_version => {
                (format!("`{wanted}`: a package is excluded in all versions"), "give the name alone")
            }
            Some(version) if !Package::is_version(version) => {
                (format!("`{version}` cannot be the version of a package"), "write `\"name=1.2-3\"`")
            }
            _ => return true,
        };
        cx.error(&text.span, message, hint);
        false
    })?;
    let again = |at: usize| names[..at].iter().find(|(_, other)| name_of(other) == name_of(&names[at].1));
    for (at, (text, wanted)) in names.iter().enumerate() {
        // The same text twice has been told.
        if again(at).is_some_and(|(_, other)| other != wanted) {
            let message = format!("`{}` is listed twice", name_of(wanted));
            cx.error(&text.span, message, "take one of the two out");
        }
    }
    Some(names)
}

/// The texts with arguments replaced, if `check` likes each of them and none is there twice.
fn each(
    cx: &Context<'_>,
    texts: &[Text],
    check: impl Fn(&Text, &str) -> bool,
) -> Option<Vec<(Text, String)>> {
    let mut all: Vec<(Text, String)> = Vec::new();
    let mut good = true;
    for text in texts {
        let Some(value) = cx.expand(text) else {
            good = false;
            continue;
        };
        good &= check(text, &value);
        if all.iter().any(|(_, other)| *other == value) {
            cx.error(&text.span, format!("`{value}` is listed twice"), "take one of the two out");
        }
        all.push((text.clone(), value));
    }
    good.then_some(all)
}
