//! What is known about CloudTrail records for sure.
//!
//! In: names and values of a rule. Out: whether some record can have them. Invariant: a doubt is a yes: these tables make
//! warnings, and a wrong warning teaches people to ignore them.
//!
//! Source: the CloudTrail record contents reference, and real events.

/// What may stand below a top-level field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One value.
    Scalar,
    /// Whatever the service puts there.
    Open,
    /// These paths and what is below them.
    Paths(&'static [&'static str]),
}

const USER_IDENTITY: &[&str] = &[
    "type",
    "principalId",
    "arn",
    "accountId",
    "accessKeyId",
    "userName",
    "invokedBy",
    "identityProvider",
    "credentialId",
    "onBehalfOf",
    "inScopeOf",
    "sessionContext.sessionIssuer",
    "sessionContext.attributes",
    "sessionContext.webIdFederationData",
    "sessionContext.sourceIdentity",
    "sessionContext.ec2RoleDelivery",
    "sessionContext.assumedRoot",
    "sessionContext.ec2IssuedInVpc",
    "sessionContext.ec2SourceVpc",
    "sessionContext.ec2SourceInstancePrivateIPv4",
];

pub const TOP_LEVEL: [(&str, Shape); 35] = [
    ("eventVersion", Shape::Scalar),
    ("userIdentity", Shape::Paths(USER_IDENTITY)),
    ("eventTime", Shape::Scalar),
    ("eventSource", Shape::Scalar),
    ("eventName", Shape::Scalar),
    ("awsRegion", Shape::Scalar),
    ("sourceIPAddress", Shape::Scalar),
    ("userAgent", Shape::Scalar),
    ("errorCode", Shape::Scalar),
    ("errorMessage", Shape::Scalar),
    ("requestParameters", Shape::Open),
    ("responseElements", Shape::Open),
    ("additionalEventData", Shape::Open),
    ("requestID", Shape::Scalar),
    ("eventID", Shape::Scalar),
    ("eventType", Shape::Scalar),
    ("apiVersion", Shape::Scalar),
    ("managementEvent", Shape::Scalar),
    ("readOnly", Shape::Scalar),
    ("resources", Shape::Open),
    ("recipientAccountId", Shape::Scalar),
    ("serviceEventDetails", Shape::Open),
    ("sharedEventID", Shape::Scalar),
    ("vpcEndpointId", Shape::Scalar),
    ("vpcEndpointAccountId", Shape::Scalar),
    ("eventCategory", Shape::Scalar),
    ("addendum", Shape::Open),
    ("sessionCredentialFromConsole", Shape::Scalar),
    ("edgeDeviceDetails", Shape::Open),
    ("tlsDetails", Shape::Open),
    ("insightDetails", Shape::Open),
    ("eventContext", Shape::Open),
    ("annotation", Shape::Open),
    ("summaries", Shape::Open),
    ("awsAccountId", Shape::Scalar),
];

/// Whether the field holds one value a record, so that two different values exclude each other.
pub fn is_single(field: &str) -> bool {
    let scalar = TOP_LEVEL.iter().any(|(name, shape)| *name == field && *shape == Shape::Scalar);
    scalar || (field.starts_with("userIdentity.") && !field.starts_with("userIdentity.inScopeOf"))
}

/// Why no record has the field; `None` if one may.
pub fn unknown_field(field: &str) -> Option<(String, String)> {
    use crate::rule::diagnostic::nearest;
    let (top, rest) = field.split_once('.').map_or((field, None), |(top, rest)| (top, Some(rest)));
    let Some((_, shape)) = TOP_LEVEL.iter().find(|(name, _)| *name == top) else {
        let hint = match nearest(top, TOP_LEVEL.iter().map(|(name, _)| *name)) {
            Some(near) if near.eq_ignore_ascii_case(top) => format!("names are case-sensitive: `{near}`"),
            Some(near) => format!("did you mean `{near}`?"),
            None => "CloudTrail's fields are described under \"CloudTrail record contents\"".into(),
        };
        return Some((format!("no CloudTrail record has the field `{top}`"), hint));
    };
    match (shape, rest) {
        (Shape::Scalar, Some(_)) => Some((format!("`{top}` is a single value: it has no `{field}`"), format!("test `{top}` itself"))),
        (Shape::Paths(paths), Some(rest)) => {
            let leads = |path: &&str| *path == rest || rest.strip_prefix(*path).is_some_and(|below| below.starts_with('.')) || path.starts_with(rest);
            if paths.iter().any(leads) {
                return None;
            }
            let near = nearest(rest, paths.iter().copied());
            let hint = near.map_or_else(|| format!("known are: {}", paths.join(", ")), |near| format!("did you mean `{top}.{near}`?"));
            Some((format!("no CloudTrail record has the field `{field}`"), hint))
        }
        _ => None,
    }
}

const IDENTITY_TYPES: [&str; 13] = [
    "Root",
    "IAMUser",
    "AssumedRole",
    "Role",
    "FederatedUser",
    "Directory",
    "AWSAccount",
    "AWSService",
    "IdentityCenterUser",
    "SAMLUser",
    "WebIdentityUser",
    "IAMRole",
    "Unknown",
];

/// `eventSource`s that people expect, and what CloudTrail writes.
const SOURCES: [(&str, &str); 7] = [
    ("docdb.amazonaws.com", "DocumentDB's calls are `rds.amazonaws.com`, those of elastic clusters `docdb-elastic.amazonaws.com`"),
    ("neptune.amazonaws.com", "Neptune's calls are `rds.amazonaws.com`"),
    ("cloudwatch.amazonaws.com", "CloudWatch's calls are `monitoring.amazonaws.com`"),
    ("cloudwatchlogs.amazonaws.com", "CloudWatch Logs' calls are `logs.amazonaws.com`"),
    ("keyspaces.amazonaws.com", "Keyspaces' calls are `cassandra.amazonaws.com`"),
    ("console.amazonaws.com", "sign-ins are `signin.amazonaws.com`"),
    ("eventbridge.amazonaws.com", "EventBridge's calls are `events.amazonaws.com`"),
];

/// Why the field never has the value.
pub fn impossible_value(field: &str, value: &str) -> Option<String> {
    let is = |known: &str| value.eq_ignore_ascii_case(known);
    match field {
        "errorCode" if ["success", "ok", "none", "0", "200"].iter().any(|word| is(word)) => {
            Some("a call that succeeds has no errorCode: write `errorCode: null`".into())
        }
        "eventSource" => match SOURCES.iter().find(|(source, _)| is(source)) {
            Some((_, says)) => Some((*says).into()),
            None => (!value.contains('.')).then(|| format!("a source is a host name: `{}.amazonaws.com`", value.to_ascii_lowercase())),
        },
        "userIdentity.type" if !IDENTITY_TYPES.iter().any(|known| is(known)) => Some(format!("known types are: {}", IDENTITY_TYPES.join(", "))),
        "readOnly" | "managementEvent" | "sessionCredentialFromConsole" | "userIdentity.sessionContext.attributes.mfaAuthenticated"
            if !is("true") && !is("false") =>
        {
            Some("it is `true` or `false`".into())
        }
        _ => None,
    }
}

const CLASSIC: &str = "these groups belong to EC2-Classic, which is gone since 2022: the call no longer happens";
const DOMAINS: &str = "domain registration is `route53domains.amazonaws.com`";
const VERSIONED: &str = "Lambda's names carry a version, as in `UpdateFunctionCode20150331v2`: use `startswith`";

/// Names that `eventSource` never sends, or never again: (source, name, what it says instead).
const EVENTS: [(&str, &str, &str); 28] = [
    ("s3", "PutEncryptionConfiguration", "that is an IAM action; the call is `PutBucketEncryption`"),
    ("s3", "PutLifecycleConfiguration", "that is an IAM action; the call is `PutBucketLifecycle`"),
    ("s3", "PutReplicationConfiguration", "that is an IAM action; the call is `PutBucketReplication`"),
    ("s3", "ReplicateObject", "that is an IAM action; there is no call of this name"),
    ("s3", "ReplicateDelete", "that is an IAM action; there is no call of this name"),
    ("s3", "ListAllMyBuckets", "that is an IAM action; the call is `ListBuckets`"),
    ("route53", "DisableDomainTransferLock", DOMAINS),
    ("route53", "EnableDomainTransferLock", DOMAINS),
    ("route53", "TransferDomainToAnotherAwsAccount", DOMAINS),
    ("route53", "TransferDomain", DOMAINS),
    ("route53", "RegisterDomain", DOMAINS),
    ("route53", "DeleteDomain", DOMAINS),
    ("route53", "UpdateDomainNameservers", DOMAINS),
    ("elasticache", "AuthorizeCacheSecurityGroupIngress", CLASSIC),
    ("elasticache", "AuthorizeCacheSecurityGroupEgress", CLASSIC),
    ("elasticache", "CreateCacheSecurityGroup", CLASSIC),
    ("elasticache", "DeleteCacheSecurityGroup", CLASSIC),
    ("elasticache", "RevokeCacheSecurityGroupIngress", CLASSIC),
    ("elasticache", "RevokeCacheSecurityGroupEgress", CLASSIC),
    ("rds", "CreateDBSecurityGroup", CLASSIC),
    ("rds", "DeleteDBSecurityGroup", CLASSIC),
    ("rds", "AuthorizeDBSecurityGroupIngress", CLASSIC),
    ("rds", "RevokeDBSecurityGroupIngress", CLASSIC),
    ("lambda", "UpdateFunctionCode", VERSIONED),
    ("lambda", "UpdateFunctionConfiguration", VERSIONED),
    ("lambda", "CreateFunction", VERSIONED),
    ("lambda", "DeleteFunction", VERSIONED),
    ("lambda", "AddPermission", VERSIONED),
];

/// Why `eventSource` (without its domain) never sends `event`.
pub fn impossible_event(source: &str, event: &str) -> Option<&'static str> {
    EVENTS.iter().find(|(of, name, _)| of.eq_ignore_ascii_case(source) && name.eq_ignore_ascii_case(event)).map(|(.., says)| *says)
}

/// Fields that a call's record does not have, though its API has the parameter.
const ABSENT: [(&str, &str, &str); 1] = [(
    "ModifyInstanceAttribute",
    "requestParameters.attribute",
    "a change of the user data is recorded with `requestParameters.userData` and without `attribute`",
)];

pub fn absent_field(event: &str, field: &str) -> Option<&'static str> {
    ABSENT.iter().find(|(name, absent, _)| name.eq_ignore_ascii_case(event) && *absent == field).map(|(.., says)| *says)
}

/// Parameters of the RDS API as CloudTrail spells them.
const RDS_PARAMETERS: [&str; 22] = [
    "dBInstanceIdentifier",
    "dBClusterIdentifier",
    "dBSnapshotIdentifier",
    "dBClusterSnapshotIdentifier",
    "dBParameterGroupName",
    "dBClusterParameterGroupName",
    "dBSubnetGroupName",
    "dBProxyName",
    "dBSecurityGroups",
    "dBName",
    "dBPortNumber",
    "enableIAMDatabaseAuthentication",
    "iAMDatabaseAuthenticationEnabled",
    "publiclyAccessible",
    "backupRetentionPeriod",
    "deletionProtection",
    "skipFinalSnapshot",
    "deleteAutomatedBackups",
    "storageEncrypted",
    "multiAZ",
    "kmsKeyId",
    "valuesToAdd",
];

/// The right spelling, if `field` is an RDS parameter in another one.
pub fn misspelt_rds_parameter(field: &str) -> Option<&'static str> {
    let name = field.strip_prefix("requestParameters.").or(field.strip_prefix("responseElements."))?;
    RDS_PARAMETERS.into_iter().find(|known| known.eq_ignore_ascii_case(name) && *known != name)
}

/// Calls that every estate makes all day.
pub const ROUTINE: [&str; 12] = [
    "ModifyDBCluster",
    "ModifyDBInstance",
    "ModifyReplicationGroup",
    "AssumeRole",
    "GetCallerIdentity",
    "Decrypt",
    "GenerateDataKey",
    "GetObject",
    "PutObject",
    "ListBuckets",
    "DescribeInstances",
    "DescribeDBInstances",
];

/// Kinds of callers of which every estate has many.
pub const COMMON_IDENTITIES: [&str; 4] = ["AssumedRole", "IAMUser", "AWSService", "Role"];

/// Fields whose values say little about what happened.
pub fn says_little(field: &str) -> bool {
    let weak =
        ["eventVersion", "eventTime", "awsRegion", "recipientAccountId", "readOnly", "managementEvent", "eventCategory", "eventType", "eventID"];
    weak.contains(&field) || field == "requestID" || field == "userIdentity.sessionContext.sessionIssuer.type"
}

/// Products of the events that the decoders make, each with its services; a service of `aws` may be any source of EventBridge.
pub const PRODUCTS: [(&str, &[&str]); 11] = [
    ("aws", &[]),
    ("postgresql", &["postgresql"]),
    ("mysql", &["audit", "error", "general", "slowquery"]),
    ("mariadb", &["audit", "error", "general", "slowquery"]),
    ("mssql", &["error"]),
    ("oracle", &["audit", "alert"]),
    ("redshift", &["connectionlog", "userlog", "useractivitylog"]),
    ("docdb", &["audit", "profiler"]),
    ("neptune", &["audit"]),
    ("redis", &["slow-log", "engine-log"]),
    ("rds", &["iam-db-auth-error", "other"]),
];

/// Their categories; other events of `aws` have none.
pub const CATEGORIES: [&str; 3] = ["database", "network", "network_activity"];
