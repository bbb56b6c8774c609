//! Rule files to a linked set.
//!
//! In: folders, files and the built-in detectors. Out: `RuleSet`, and all findings of all files. Invariant: every reference
//! of the set is an index in range, children stand before their parents, and filters are already part of their rules.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::event::AccountId;
use crate::rule::{
    ast::{Correlation, Filter, Meta, Profile, Rule, Span},
    builtin,
    diagnostic::{Diagnostic, Report, Severity},
    link,
    modifier::{Lists, placeholders},
    sigma, yaml,
};

/// Files of one run; more is a wrong folder.
const MAX_FILES: usize = 20_000;
/// Folders in folders; ends loops of links.
const MAX_FOLDERS_DEEP: usize = 16;

/// Where rules come from. A rule of a later input replaces one with the same id of an earlier input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    Builtin,
    /// A rule file, or a folder of `*.yml` and `*.yaml`; `*.cases.yml` and hidden files are left out.
    Path(PathBuf),
}

impl Input {
    /// As on the command line: `builtin`, or a path.
    pub fn from_argument(argument: &Path) -> Self {
        if argument.as_os_str() == "builtin" { Self::Builtin } else { Self::Path(argument.to_owned()) }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Values of the placeholders of `expand`.
    pub lists: Lists,
    /// Rules of louder profiles do not run.
    pub profile: Profile,
}

/// A file's name as it is shown, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub name: Arc<str>,
    pub text: Cow<'static, str>,
}

/// What a rule or correlation does in this set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Role {
    /// False: its profile is louder than the configured one, and nothing that runs refers to it.
    pub runs: bool,
    /// False: it only feeds correlations (none of which says `generate: true`).
    pub alerts: bool,
}

/// Into `RuleSet::rules` or `RuleSet::correlations`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reference {
    Rule(usize),
    Correlation(usize),
}

#[derive(Debug, Clone, PartialEq)]
pub struct LinkedRule {
    /// With the filters that name it joined to its conditions.
    pub rule: Rule,
    pub role: Role,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LinkedCorrelation {
    pub correlation: Correlation,
    /// In step with `correlation.rules`; correlations among them have smaller indexes than this one.
    pub children: Vec<Reference>,
    pub role: Role,
}

#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    pub rules: Vec<LinkedRule>,
    pub correlations: Vec<LinkedCorrelation>,
    /// As written; already joined to `rules`.
    pub filters: Vec<Filter>,
    pub sources: Vec<Source>,
    /// That are not foreign to any event, as the lists say.
    pub own_accounts: Vec<AccountId>,
}

/// A set and what was found while it was read.
#[derive(Debug, Default)]
pub struct Loaded {
    pub set: RuleSet,
    pub diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// All findings for people, an empty line between them.
    pub fn render(&self, colour: bool) -> String {
        let texts: Vec<_> = self.diagnostics.iter().map(|found| found.render(self.set.source(&found.file), colour)).collect();
        texts.join("\n\n")
    }
}

impl RuleSet {
    /// Descriptions of all rules, then of all correlations, with what each does.
    pub fn metas(&self) -> impl Iterator<Item = (&Meta, Role)> {
        let rules = self.rules.iter().map(|linked| (&linked.rule.meta, linked.role));
        rules.chain(self.correlations.iter().map(|linked| (&linked.correlation.meta, linked.role)))
    }

    /// Names of the lists that the files of the set name as `%name%`, also where a comment does.
    pub fn lists(&self) -> BTreeSet<&str> {
        self.sources.iter().flat_map(|source| placeholders(&source.text)).collect()
    }

    /// The text of a file, empty if there is none of that name.
    pub fn source(&self, name: &str) -> &str {
        self.sources.iter().find(|source| &*source.name == name).map_or("", |source| &source.text)
    }
}

/// Reads, checks and links all rules of `inputs`.
pub fn load(inputs: &[Input], options: &Options) -> Loaded {
    let mut files = Files::default();
    let mut parsed = link::Documents::default();
    for (number, input) in inputs.iter().enumerate() {
        let first = files.sources.len();
        match input {
            Input::Builtin => files.sources.extend(builtin::detectors().map(|(name, text)| Source { name: name.into(), text: text.into() })),
            Input::Path(path) => files.read(path),
        }
        for file in parse_all(&files.sources[first..], &options.lists) {
            parsed.add(number, file, &mut files.diagnostics);
        }
    }
    finish(parsed, files, options)
}

/// The same for texts that were read before.
pub fn load_texts(sources: Vec<Source>, options: &Options) -> Loaded {
    let mut files = Files { sources, diagnostics: Vec::new() };
    let mut parsed = link::Documents::default();
    for file in parse_all(&files.sources, &options.lists) {
        parsed.add(0, file, &mut files.diagnostics);
    }
    finish(parsed, files, options)
}

/// Parses files on several threads, as reading YAML is most of a start's time. In the order of `sources`.
fn parse_all(sources: &[Source], lists: &Lists) -> Vec<sigma::Parsed> {
    /// Fewer files are faster on one thread.
    const FILES_A_THREAD: usize = 16;
    const MAX_THREADS: usize = 4;
    let parse = |sources: &[Source]| -> Vec<sigma::Parsed> { sources.iter().map(|source| sigma::parse(&source.name, &source.text, lists)).collect() };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (sources.len() / FILES_A_THREAD).min(cores).min(MAX_THREADS);
    if threads < 2 {
        return parse(sources);
    }
    let chunks = sources.chunks(sources.len().div_ceil(threads));
    std::thread::scope(|scope| {
        let workers: Vec<_> = chunks.map(|chunk| scope.spawn(move || parse(chunk))).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("the parser does not panic, as its fuzz tests hold")).collect()
    })
}

fn finish(parsed: link::Documents, mut files: Files, options: &Options) -> Loaded {
    let mut set = link::link(parsed, options.profile, &mut files.diagnostics);
    set.sources = files.sources;
    set.own_accounts = options.lists.own_accounts();
    Loaded { set, diagnostics: files.diagnostics }
}

#[derive(Default)]
struct Files {
    sources: Vec<Source>,
    diagnostics: Vec<Diagnostic>,
}

impl Files {
    fn read(&mut self, path: &Path) {
        let mut paths = Vec::new();
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                if let Err(error) = walk(path, 0, &mut paths) {
                    return self.refuse(path, &error);
                }
                paths.sort();
                if paths.is_empty() {
                    let hint = "rules are `*.yml` files; name another folder, or `builtin`";
                    let message = "the folder has no rules".to_owned();
                    self.diagnostics.push(finding(Severity::Warning, path, message, hint));
                }
            }
            Ok(_) => paths.push(path.to_owned()),
            Err(error) => return self.refuse(path, &error),
        }
        for path in paths {
            match read_text(&path) {
                Ok(text) => self.sources.push(Source { name: path.display().to_string().into(), text: text.into() }),
                Err(error) => self.refuse(&path, &error),
            }
        }
    }

    fn refuse(&mut self, path: &Path, error: &io::Error) {
        let hint = "check the path and its permissions";
        self.diagnostics.push(finding(Severity::Error, path, format!("can't be read: {error}"), hint));
    }
}

fn finding(severity: Severity, path: &Path, message: String, hint: &str) -> Diagnostic {
    Diagnostic { severity, file: path.display().to_string().into(), span: Span::default(), message, hint: Some(hint.into()) }
}

fn walk(folder: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    if depth > MAX_FOLDERS_DEEP {
        return Err(io::Error::other(format!("folders nested deeper than {MAX_FOLDERS_DEEP}")));
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        // Kubernetes mounts the versions of a ConfigMap in hidden folders and links the names to them.
        if name.starts_with('.') {
            continue;
        }
        if fs::metadata(&path)?.is_dir() {
            walk(&path, depth + 1, paths)?;
        } else if (name.ends_with(".yml") || name.ends_with(".yaml")) && !name.ends_with(builtin::CASES) {
            paths.push(path);
        }
        if paths.len() > MAX_FILES {
            return Err(io::Error::other(format!("more than {MAX_FILES} rule files")));
        }
    }
    Ok(())
}

fn read_text(path: &Path) -> io::Result<String> {
    use io::Read;
    let mut bytes = Vec::new();
    // One byte more than the parser takes, so that it is the parser who refuses.
    fs::File::open(path)?.take(yaml::MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        io::Error::new(io::ErrorKind::InvalidData, format!("byte {at} is not UTF-8"))
    })
}

/// Findings about a whole set that belong to a place of some file.
pub(in crate::rule) fn report_for<'d>(
    file: &Arc<str>,
    diagnostics: &'d mut Vec<Diagnostic>,
    tell: impl FnOnce(&mut Report),
) -> &'d mut Vec<Diagnostic> {
    let mut report = Report::new(file.clone());
    tell(&mut report);
    diagnostics.extend(report.found);
    diagnostics
}

#[cfg(test)]
pub(in crate::rule) mod tests;
