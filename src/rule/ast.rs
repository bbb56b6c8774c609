//! What a rule file says, as types: every name resolved as far as one file allows, every part with its place in the source.
//!
//! In: the YAML tree of `rule::yaml`. Out: what `rule::compile` and `correlate` work from. Invariant: a value of these types
//! is well-formed Sigma 2.1.0 (or one of the documented extensions); it is never checked again.

use std::sync::Arc;

/// Bytes `start..end` of the rule's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Spanned<T> {
    pub value: T,
    pub span: Span,
}

/// One YAML document of a rule file.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    Rule(Rule),
    Correlation(Correlation),
    Filter(Filter),
}

/// Sigma's five levels, in order of urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Informational,
    Low,
    Medium,
    High,
    Critical,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Stable,
    Test,
    Experimental,
    Deprecated,
    Unsupported,
}

/// How loud a deployment wants to be: a rule runs where the configured profile is at or above its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Profile {
    Quiet,
    #[default]
    Standard,
    Paranoid,
}

/// Who shares a group's state: the account that the event came from, or the whole organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Scope {
    #[default]
    Account,
    Organization,
}

/// The descriptive half of a document, common to rules and correlations.
#[derive(Debug, Clone, PartialEq)]
pub struct Meta {
    /// The file that every span of the document belongs to, as it is shown to people.
    pub file: Arc<str>,
    pub id: Option<Spanned<String>>,
    /// Sigma's `name`: how correlations of the same set refer to it.
    pub name: Option<Spanned<String>>,
    pub title: Spanned<String>,
    pub status: Option<Status>,
    /// `medium` where the rule names none.
    pub level: Level,
    pub tags: Vec<Spanned<String>>,
    pub description: String,
    pub author: String,
    pub date: Option<String>,
    pub modified: Option<String>,
    pub references: Vec<String>,
    pub false_positives: Vec<String>,
    pub related: Vec<(String, String)>,
    /// The key `trailwarden:`, our extension.
    pub ext: Extension,
    /// The whole document.
    pub span: Span,
}

impl Meta {
    /// What names the rule in alerts, metrics and state: its id, else its name, else its title.
    pub fn key(&self) -> &str {
        self.id.as_ref().or(self.name.as_ref()).map_or(&self.title.value, |named| &named.value)
    }
}

/// The custom attribute `trailwarden:` of a rule or correlation; other engines ignore it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Extension {
    /// One line, who did what to which resource from where: `{field.path}` is replaced by the event's value.
    pub summary: Option<Spanned<String>>,
    /// What the person on call should do next.
    pub next: Option<String>,
    pub profile: Profile,
    pub scope: Scope,
    /// Fields that make one incident of several single-event findings; empty: each event its own.
    pub group: Vec<Spanned<String>>,
    /// The incident counts as over when nothing was added to it for so long.
    pub resolve_after_ms: Option<u64>,
    /// Makes the rule's matches evidence of a stateful extension instead of alerts.
    pub state: Option<Spanned<State>>,
}

/// Stateful kinds that Sigma lacks, on the matches of the one rule that carries them.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// A tuple of `fields` never seen before in its group; what is seen within `learning_ms` of the rule's first start is
    /// learnt in silence; a value unseen for `memory_ms` is forgotten.
    NewValue { fields: Vec<Spanned<String>>, group_by: Vec<Spanned<String>>, memory_ms: u64, learning_ms: u64 },
    /// The number in `field` is lower than some earlier value of its group within the span.
    ValueDrop { field: Spanned<String>, group_by: Vec<Spanned<String>>, timespan_ms: u64 },
    /// A group seen once stays silent for the span.
    Absence { group_by: Vec<Spanned<String>>, timespan_ms: u64 },
}

impl State {
    /// Every event field that it reads: values, then group-by.
    pub fn fields(&self) -> impl Iterator<Item = &Spanned<String>> {
        let (values, group_by) = match self {
            Self::NewValue { fields, group_by, .. } => (fields.as_slice(), group_by),
            Self::ValueDrop { field, group_by, .. } => (std::slice::from_ref(field), group_by),
            Self::Absence { group_by, .. } => (&[][..], group_by),
        };
        values.iter().chain(group_by)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    pub meta: Meta,
    pub logsource: LogSource,
    pub selections: Vec<Selection>,
    /// A list of conditions means any of them.
    pub conditions: Vec<Spanned<Condition>>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct LogSource {
    pub category: Option<Spanned<String>>,
    pub product: Option<Spanned<String>>,
    pub service: Option<Spanned<String>>,
}

/// A named search identifier under `detection`.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    pub name: Spanned<String>,
    /// Where its spans point: a filter's selections are added to the rules of other files.
    pub file: Arc<str>,
    pub body: Block,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Block {
    /// A map: every item holds.
    All(Vec<Item>),
    /// A list of maps or keywords: one block holds.
    Any(Vec<Block>),
}

/// One line of a selection, its modifiers applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub target: Target,
    pub tests: Vec<Spanned<Test>>,
    /// `|all`: every test holds (for some member each, over arrays) instead of one.
    pub all: bool,
    /// `|neq`: the item is negated (a missing field makes it true).
    pub negated: bool,
    pub span: Span,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// Dots are path steps; arrays on the way fan out.
    Field(Spanned<String>),
    /// No field: the text of any value in the event.
    Keyword,
}

/// One test against one value.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// A string, whole-value unless the pattern begins or ends with a star.
    Text {
        pattern: Pattern,
        cased: bool,
    },
    /// An unquoted YAML number or boolean; equals the same value whether the event has it as a number, boolean or string.
    Number(String),
    Bool(bool),
    Null,
    Exists(bool),
    Regex {
        source: String,
        ignore_case: bool,
        multi_line: bool,
        dot_all: bool,
    },
    Compare {
        op: Comparison,
        number: f64,
        lexeme: String,
    },
    Cidr(ipnet::IpNet),
    FieldRef {
        field: String,
        how: Affix,
        cased: bool,
    },
    /// Equal, or compared where `lt`, `lte`, `gt` or `gte` stands beside the part's name; UTC.
    TimePart {
        part: TimePart,
        op: Comparison,
        value: i64,
    },
    /// `|expand` with `%name%`, its placeholder not given by the config: never true; a warning tells.
    Unexpanded {
        name: String,
    },
    /// Extension `field[any]: {…}` / `field[all]:`: one (every) object of the array satisfies the block by itself.
    Element {
        every: bool,
        block: Block,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affix {
    Whole,
    Starts,
    Ends,
    Contains,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Lt,
    Lte,
    Gt,
    Gte,
    Eq,
    Neq,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimePart {
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

/// A Sigma string: literal runs and wildcards, escapes already resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Pattern(pub Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Part {
    Literal(String),
    /// `*`: any run, empty and newline too.
    Star,
    /// `?`: one character.
    Question,
}

/// A condition, with `1 of`, `all of`, `them` and globs already turned into and/or over selections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Index into the rule's selections.
    Selection(usize),
    Not(Box<Condition>),
    And(Vec<Condition>),
    Or(Vec<Condition>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Correlation {
    pub meta: Meta,
    pub kind: CorrelationKind,
    /// Ids or names of rules or correlations.
    pub rules: Vec<Spanned<String>>,
    pub group_by: Vec<Spanned<String>>,
    /// `aliases`: group-by name → (rule, field) pairs.
    pub aliases: Vec<Alias>,
    pub timespan_ms: u64,
    /// Empty for temporal kinds without a condition; two entries make a range.
    pub bounds: Vec<(Comparison, f64)>,
    /// Extended temporal condition: a boolean expression over the rules.
    pub expression: Option<Spanned<Expression>>,
    /// `generate: true`: the referred rules alert by themselves too.
    pub generate: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Alias {
    pub name: Spanned<String>,
    pub fields: Vec<(Spanned<String>, Spanned<String>)>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum CorrelationKind {
    EventCount,
    /// Several fields count distinct tuples.
    ValueCount {
        fields: Vec<Spanned<String>>,
    },
    Temporal,
    TemporalOrdered,
    ValueSum {
        field: Spanned<String>,
    },
    ValueAvg {
        field: Spanned<String>,
    },
    ValuePercentile {
        field: Spanned<String>,
        percentile: f64,
    },
}

/// Boolean expression over indexes into `Correlation::rules`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    Rule(usize),
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
}

/// A Sigma filter: and-ed to every rule it names.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    pub file: Arc<str>,
    pub title: Spanned<String>,
    pub id: Option<Spanned<String>>,
    pub logsource: LogSource,
    /// Ids or names; `None` is `any`.
    pub rules: Option<Vec<Spanned<String>>>,
    pub selections: Vec<Selection>,
    pub condition: Spanned<Condition>,
    pub span: Span,
}
