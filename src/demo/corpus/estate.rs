//! The estate that the corpus comes from: its accounts, databases, keys and people, and the sessions they act in.
//!
//! In: a seed. Out: sessions with their `userIdentity`, and the values of slots. Invariant: names are the same for every seed,
//! only ids, keys and addresses differ; addresses are private or reserved for documentation.

use super::random::Random;

pub const ACCOUNTS: [&str; 3] = ["111122223333", "444455556666", "777788889999"];
pub const FOREIGN_ACCOUNT: &str = "999900001111";
const REGIONS: [&str; 3] = ["eu-west-1", "eu-central-1", "us-east-1"];
const DOMAINS: [&str; 12] =
    ["orders", "payments", "customers", "ledger", "sessions", "inventory", "pricing", "shipping", "billing", "audit", "search", "recommendations"];
const STAGES: [&str; 3] = ["prod", "staging", "dev"];
const ROLES: [&str; 9] = [
    "orders-api",
    "payments-worker",
    "ledger-writer",
    "customer-portal",
    "pricing-batch",
    "etl-loader",
    "report-builder",
    "edge-gateway",
    "db-migrator",
];
const PEOPLE: [&str; 14] = [
    "a.okafor",
    "b.lindqvist",
    "c.moreau",
    "d.tanaka",
    "e.kowalska",
    "f.silva",
    "g.haddad",
    "h.novak",
    "i.petrov",
    "j.mensah",
    "k.olsen",
    "l.fischer",
    "m.rossi",
    "n.varga",
];
const ENGINES: [&str; 4] = ["postgres", "mysql", "redis", "docdb"];
const AGENTS: [&str; 10] = [
    "aws-sdk-java/2.25.@n Linux/5.10.@n-198.868.amzn2.aarch64 OpenJDK_64-Bit_Server_VM/21.0.@n+7-LTS Java/21.0.@n kotlin/1.9.23 vendor/Amazon.com_Inc. md/internal exec-env/AWS_ECS_FARGATE io/async http/NettyNio cfg/retry-mode/standard",
    "Boto3/1.34.@n md/Botocore#1.34.@n ua/2.0 os/linux#5.10.@n-207.787.amzn2.aarch64 md/arch#aarch64 lang/python#3.12.@n md/pyimpl#CPython exec-env/AWS_ECS_FARGATE cfg/retry-mode#adaptive Botocore/1.34.@n",
    "aws-sdk-go-v2/1.26.@n os/linux lang/go#1.22.@n md/GOOS#linux md/GOARCH#arm64 api/secretsmanager#1.28.@n m/E",
    "aws-sdk-js/3.55@n.0 ua/2.1 os/linux#6.1.@n lang/js md/nodejs#20.11.@n api/dynamodb#3.55@n.0 exec-env/AWS_Lambda_nodejs20.x",
    "aws-sdk-dotnet-coreclr/3.7.3@n.0 ua/2.0 os/linux#5.10.@n md/ARCH#X64 lang/.NET_Core#8.0.@n md/aws-sdk-dotnet-core#3.7.3@n.0 api/RDS#3.7.4@n.0 cfg/retry-mode#legacy md/ClientAsync cfg/init-coll#0",
    "aws-sdk-rust/1.2.@n os/linux lang/rust/1.78.0",
    "Boto3/1.34.@n md/Botocore#1.34.@n ua/2.0 os/linux#6.1.@n-85.141.amzn2023.x86_64 md/arch#x86_64 lang/python#3.11.@n md/pyimpl#CPython cfg/retry-mode#standard Botocore/1.34.@n collector/7.5@n (agentless)",
    "APN/1.0 HashiCorp/1.0 Terraform/1.8.@n (+https://www.terraform.io) terraform-provider-aws/5.4@n.0 (+https://registry.terraform.io/providers/hashicorp/aws) aws-sdk-go-v2/1.26.@n os/linux lang/go#1.22.@n md/GOOS#linux md/GOARCH#amd64 api/rds#1.78.@n",
    "aws-cli/2.15.@n md/awscrt#0.19.19 ua/2.0 os/macos#23.4.0 md/arch#arm64 lang/python#3.11.@n md/pyimpl#CPython cfg/retry-mode#standard md/installer#exe md/prompt#off md/command#rds.describe-db-instances",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/12@n.0.0.0 Safari/537.36",
];

/// Somebody or something that calls: an identity with its credentials, for as long as they last.
#[derive(Debug, Clone)]
pub struct Session {
    /// The event's `userIdentity`, as JSON.
    pub identity: Vec<u8>,
    pub address: Vec<u8>,
    pub agent: Vec<u8>,
    pub account: usize,
    pub region: usize,
    /// Called over TLS from outside AWS's own services.
    pub tls: bool,
    pub console: bool,
    /// Calls until new credentials are taken.
    pub left: u32,
}

/// What a name stands for throughout one event.
#[derive(Debug, Clone, Copy)]
pub struct Draw(pub u64);

impl Draw {
    fn pick<'n>(self, shift: u32, names: &[&'n str]) -> &'n str {
        names[(self.0 >> shift) as usize % names.len()]
    }

    pub fn domain(self) -> &'static str {
        self.pick(0, &DOMAINS)
    }

    pub fn stage(self) -> &'static str {
        self.pick(8, &STAGES)
    }

    pub fn engine(self) -> &'static str {
        self.pick(16, &ENGINES)
    }

    pub fn role(self) -> &'static str {
        self.pick(24, &ROLES)
    }

    pub fn person(self) -> &'static str {
        self.pick(32, &PEOPLE)
    }

    /// 1 to 8: a member, a version, a vault.
    pub fn ordinal(self) -> u64 {
        1 + (self.0 >> 40) % 8
    }

    /// The same letters for the same names: a secret's or bucket's suffix.
    pub fn stable(self) -> Random {
        Random::new(
            self.domain().len() as u64 * 131 + self.stage().len() as u64 * 17 + self.engine().len() as u64 + self.domain().as_bytes()[0] as u64,
        )
    }
}

pub fn region(index: usize) -> &'static str {
    REGIONS[index]
}

/// How many sessions of a pool live at a time.
pub fn pool_size(pool: &str) -> usize {
    match pool.split(':').next().unwrap_or(pool) {
        "app" => 160,
        "mon" => 12,
        "ci" | "sso" => 10,
        "cli" => 8,
        "rot" => 6,
        "usr" | "bak" | "svc" => 4,
        "att" => 5,
        _ => 2,
    }
}

/// Replaces `@n` by numbers.
fn agent(template: &str, random: &mut Random) -> Vec<u8> {
    let mut text = String::new();
    for (at, part) in template.split("@n").enumerate() {
        if at > 0 {
            text += &random.below(90).to_string();
        }
        text += part;
    }
    text.into_bytes()
}

fn letters(random: &mut Random, len: usize) -> String {
    let mut text = Vec::new();
    random.upper(len, &mut text);
    String::from_utf8(text).expect("letters are ASCII")
}

fn public_address(random: &mut Random) -> String {
    format!("{}.{}", ["192.0.2", "198.51.100"][random.below(2)], random.below(254) + 1)
}

/// New credentials for a member of the pool, at this time (RFC 3339).
pub fn session(pool: &str, now: &str, random: &mut Random) -> Session {
    let (kind, service) = pool.split_once(':').unwrap_or((pool, ""));
    let account = if matches!(kind, "att" | "root") { 0 } else { random.below(ACCOUNTS.len()) };
    let draw = Draw(random.next());
    let service_host = format!("{service}.amazonaws.com");
    let (identity, address, agent_index) = match kind {
        "svc" => (service_role(account, &service_role_name(service), service, &service_host, now, random), service_host.clone(), None),
        "bak" => {
            let host = "backup.amazonaws.com";
            (service_role(account, "AWSBackupDefaultServiceRole", "AWSBackup-estate-daily", host, now, random), host.to_owned(), None)
        }
        "aws" => (format!(r#"{{"type":"AWSService","invokedBy":"{service_host}"}}"#), service_host.clone(), None),
        "usr" => (user(account, "svc-legacy-reporting", random), public_address(random), Some(1)),
        "att" => (user(account, "deploy-bot", random), format!("203.0.113.{}", random.below(254) + 1), Some(1)),
        "root" => (root(account, now, random), public_address(random), Some(9)),
        "mon" => (
            role(account, "observability-readonly", &format!("collector-{}", letters(random, 8)), now, false, random),
            public_address(random),
            Some(6),
        ),
        "ci" => (role(account, "ci-terraform", &format!("run-{}", random.below(1_000_000)), now, true, random), public_address(random), Some(7)),
        "sso" | "cli" => {
            let name = format!("AWSReservedSSO_{}_{:016x}", ["ReadOnlyAccess", "DatabaseAdministrator"][random.below(2)], 0x9f3c_u64 << 20);
            let agent = if kind == "sso" { 9 } else { 8 };
            (role(account, &name, draw.person(), now, false, random), public_address(random), Some(agent))
        }
        "rot" => {
            let name = format!("{}-rotation", draw.domain());
            let address = format!("10.20.{}.{}", random.below(16), random.below(254) + 1);
            (role(account, &name, &format!("{}-{}-rotate", draw.stage(), draw.domain()), now, false, random), address, Some(1))
        }
        _ => {
            let address = format!("10.20.{}.{}", random.below(250), random.below(254) + 1);
            (task(account, draw, now, random), address, Some(random.below(6)))
        }
    };
    let agent = agent_index.map_or_else(|| address.clone().into_bytes(), |index: usize| agent(AGENTS[index], random));
    Session {
        identity: identity.into_bytes(),
        tls: !address.ends_with(".amazonaws.com"),
        address: address.into_bytes(),
        agent,
        account,
        region: if random.below(4) == 0 { 1 + random.below(2) } else { 0 },
        console: kind == "sso",
        left: 400 + random.below(4000) as u32,
    }
}

fn service_role_name(service: &str) -> String {
    let short = service.split('.').next_back().unwrap_or(service);
    let name = match short {
        "autoscaling" => "AutoScaling",
        "rds" => "RDS",
        "ecs" => "ECS",
        "config" => "Config",
        other => other,
    };
    format!("AWSServiceRoleFor{name}")
}

fn role(account: usize, role: &str, name: &str, now: &str, federated: bool, random: &mut Random) -> String {
    let account = ACCOUNTS[account];
    let (id, key) = (letters(random, 17), letters(random, 16));
    let web = if federated {
        format!(
            r#""webIdFederationData":{{"federatedProvider":"arn:aws:iam::{account}:oidc-provider/ci.example.com","attributes":{{"ci.example.com:aud":"sts.amazonaws.com","ci.example.com:sub":"repo:estate/infra:ref:refs/heads/main"}}}},"#
        )
    } else {
        String::new()
    };
    format!(
        r#"{{"type":"AssumedRole","principalId":"AROA{id}:{name}","arn":"arn:aws:sts::{account}:assumed-role/{role}/{name}","accountId":"{account}","accessKeyId":"ASIA{key}","sessionContext":{{"sessionIssuer":{{"type":"Role","principalId":"AROA{id}","arn":"arn:aws:iam::{account}:role/{role}","accountId":"{account}","userName":"{role}"}},{web}"attributes":{{"creationDate":"{now}","mfaAuthenticated":"false"}}}}}}"#
    )
}

/// A container's role: the identity says for which task the credentials were made.
fn task(account: usize, draw: Draw, now: &str, random: &mut Random) -> String {
    let task = letters(random, 32).to_lowercase();
    let mut text = role(account, draw.role(), &task, now, false, random);
    text.pop();
    let (account, cluster) = (ACCOUNTS[account], draw.domain());
    text + &format!(
        r#","inScopeOf":{{"issuerType":"AWS::ECS::Task","credentialsIssuedTo":"arn:aws:ecs:eu-west-1:{account}:task/{cluster}/{task}"}}}}"#
    )
}

fn service_role(account: usize, name: &str, session: &str, host: &str, now: &str, random: &mut Random) -> String {
    let mut text = role(account, name, session, now, false, random);
    text.pop();
    text + &format!(r#","invokedBy":"{host}"}}"#)
}

fn user(account: usize, name: &str, random: &mut Random) -> String {
    let account = ACCOUNTS[account];
    let (id, key) = (letters(random, 17), letters(random, 16));
    format!(
        r#"{{"type":"IAMUser","principalId":"AIDA{id}","arn":"arn:aws:iam::{account}:user/{name}","accountId":"{account}","accessKeyId":"AKIA{key}","userName":"{name}"}}"#
    )
}

fn root(account: usize, now: &str, random: &mut Random) -> String {
    let (account, key) = (ACCOUNTS[account], letters(random, 16));
    format!(
        r#"{{"type":"Root","principalId":"{account}","arn":"arn:aws:iam::{account}:root","accountId":"{account}","accessKeyId":"ASIA{key}","sessionContext":{{"attributes":{{"creationDate":"{now}","mfaAuthenticated":"false"}}}}}}"#
    )
}
