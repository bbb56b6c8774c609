"""What the linters miss: the ECS task as ECS reads it, and policies that allow more than they name.

In: the CloudFormation templates; ecs/task-definition.json beside this file. Out: every fault, exit 1. Invariant: the task
definition and the template describe the same container.
"""

import json
import pathlib
import sys

import parliament
from cfnlint.decode import cfn_yaml

faults = []


def fault(where, what):
    faults.append(f"{where}: {what}")


def lower(value):
    """CloudFormation's spelling of keys to the API's; values that are references become text."""
    if isinstance(value, dict):
        if len(value) == 1 and (next(iter(value)) == "Ref" or next(iter(value)).startswith("Fn::")):
            return "reference"
        free = {"DockerLabels", "Options"}
        return {k[0].lower() + k[1:]: (dict(v) if k in free else lower(v)) for k, v in value.items()}
    return [lower(v) for v in value] if isinstance(value, list) else value


def check_container(where, container):
    expected = {
        "healthCheck.command": ["CMD", "/trailwarden", "healthcheck"],
        "readonlyRootFilesystem": True,
        "essential": True,
        "dockerLabels.ECS_PROMETHEUS_EXPORTER_PORT": "9464",
        "linuxParameters.capabilities.drop": ["ALL"],
        "logConfiguration.logDriver": "awslogs",
        "logConfiguration.options.mode": "non-blocking",
    }
    for path, want in expected.items():
        found = container
        for key in path.split("."):
            found = (found or {}).get(key)
        if found != want:
            fault(where, f"{path} is {found!r}, not {want!r}")
    if not 10 < container.get("stopTimeout", 0) <= 120:
        fault(where, f"stopTimeout {container.get('stopTimeout')}: over 10 s (the hand-over) and at most 120 s (Fargate)")
    if container.get("user", "0").split(":")[0] in ("0", "root"):
        fault(where, "runs as root")
    for variable in container.get("environment", []):
        if any(word in variable["name"] for word in ("KEY", "SECRET", "TOKEN", "PASSWORD")):
            fault(where, f"{variable['name']} belongs into secrets")
    if [m["containerPort"] for m in container["portMappings"]] != [9464]:
        fault(where, "exposes other ports than 9464")


def check_policy(where, document, principal_policy):
    text = json.dumps(document, default=lambda _: "reference")
    for statement in document["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        if any(a == "*" or a.endswith(":*") for a in actions) and not principal_policy:
            fault(where, f"allows {actions}")
        if statement.get("Resource") == "*" and not principal_policy:
            fault(where, f"allows {actions} on every resource")
        services = {"kms", "sts"} if principal_policy else {"kinesis", "kms", "dynamodb", "secretsmanager", "logs"}
        if not {a.split(":")[0] for a in actions} <= services:
            fault(where, f"{actions} of a service that the daemon has no business with")
    if not principal_policy:
        plain = json.loads(text)
        for statement in plain["Statement"]:
            statement["Resource"] = "*"
        # Only whether the actions exist: the resources are references until the stack is made.
        for finding in parliament.analyze_policy_string(json.dumps(plain)).findings:
            if finding.issue in ("UNKNOWN_ACTION", "UNKNOWN_PREFIX", "INVALID_ACTION", "MALFORMED"):
                fault(where, f"{finding.issue} {finding.detail}")


def check_template(path):
    template = cfn_yaml.load(str(path))
    containers = []
    for name, resource in template["Resources"].items():
        where, properties = f"{path.name} {name}", resource["Properties"]
        if resource["Type"] == "AWS::ECS::TaskDefinition":
            found = [lower(c) for c in properties["ContainerDefinitions"]]
            containers += found
            for container in found:
                check_container(where, container)
        if resource["Type"] == "AWS::IAM::Role":
            check_policy(where, properties["AssumeRolePolicyDocument"], True)
            for policy in properties["Policies"]:
                check_policy(f"{where} {policy['PolicyName']}", policy["PolicyDocument"], False)
        if resource["Type"] == "AWS::KMS::Key":
            check_policy(where, properties["KeyPolicy"], True)
    return containers


task = json.loads((pathlib.Path(__file__).parent / "ecs/task-definition.json").read_text())
for container in task["containerDefinitions"]:
    check_container("ecs/task-definition.json", container)
for name in sys.argv[1:]:
    for container in check_template(pathlib.Path(name)):
        for key, value in task["containerDefinitions"][0].items():
            other = container.get(key)
            if key not in ("image", "environment", "secrets", "logConfiguration", "linuxParameters") and other != value:
                fault(name, f"{key} is {other!r}, in the task definition {value!r}")
print("\n".join(faults) or "deploy/check.py: no faults")
sys.exit(bool(faults))
