//! Which log it is: told by the log group, confirmed by the first bytes.
//!
//! In: log group, log stream, the beginning of the text. Out: `Route`: the kind of log, its instance and cluster. Invariant:
//! a group's name alone never decides against what the bytes show.

use super::{fields::LogFields, tax::Tax};

/// The log formats, one parser each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Postgres,
    MysqlAudit,
    MysqlError,
    MysqlGeneral,
    MysqlSlow,
}

impl Kind {
    /// Sigma's product; MySQL's family may say another one per event.
    pub const fn product(self) -> &'static str {
        match self {
            Kind::Postgres => "postgresql",
            Kind::MysqlAudit | Kind::MysqlError | Kind::MysqlGeneral | Kind::MysqlSlow => "mysql",
        }
    }

    /// Sigma's service: the type of log.
    pub const fn service(self) -> &'static str {
        match self {
            Kind::Postgres => "postgresql",
            Kind::MysqlAudit => "audit",
            Kind::MysqlError => "error",
            Kind::MysqlGeneral => "general",
            Kind::MysqlSlow => "slowquery",
        }
    }

    /// Sigma's category.
    pub const fn category(self) -> &'static str {
        "database"
    }
}

/// A log: its kind and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub kind: Kind,
    pub instance: String,
    pub cluster: String,
}

impl Route {
    /// A log whose owner isn't known: a file.
    pub fn of(kind: Kind) -> Self {
        Self { kind, instance: String::new(), cluster: String::new() }
    }

    /// Sets the fields that hold for every event of the log.
    pub(super) fn put(&self, fields: &mut LogFields) {
        fields.put(Tax::Instance, self.instance.as_bytes());
        fields.put(Tax::Cluster, self.cluster.as_bytes());
    }
}
