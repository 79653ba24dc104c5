"""Holds a file against the schema of its platform: `validate.py kubernetes VERSION FILE`, `validate.py ecs FILE`."""

import json
import sys


def kubernetes(version, path):
    import kubernetes_validate
    import yaml

    with open(path, encoding="utf-8") as file:
        documents = [document for document in yaml.safe_load_all(file) if document]
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)
    return len(documents)


def ecs(path):
    import botocore.session
    from botocore.validate import ParamValidator

    model = botocore.session.get_session().get_service_model("ecs")
    with open(path, encoding="utf-8") as file:
        definition = json.load(file)
    report = ParamValidator().validate(definition, model.operation_model("RegisterTaskDefinition").input_shape)
    if report.has_errors():
        sys.exit(report.generate_report())
    # The validator lets through what the platform would not know.
    unknown = [name for name in definition if name not in model.shape_for("RegisterTaskDefinitionRequest").members]
    container = model.shape_for("ContainerDefinition").members
    unknown += [name for one in definition["containerDefinitions"] for name in one if name not in container]
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}")
    return 1


if __name__ == "__main__":
    count = globals()[sys.argv[1]](*sys.argv[2:])
    assert count > 0, "there is nothing to validate"
