"""Each setting, and where it comes from."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lorry_pipelines.diagnosis.findings import Finding
from lorry_registry.settings import DEFAULT, SETTINGS_FILE, Settings, find_settings_file, list_origins
from lorry_registry.text.addresses import has_secret, hide_secrets

SECTION = "Settings"


def check_settings(settings: Settings, environment: Mapping[str, str], folder: Path) -> Sequence[Finding]:
    """Return each setting with its origin; one from ``lorry.toml`` that holds a secret is a warning."""
    path = find_settings_file(folder)
    shown_path = str(path) if path is not None else f"none at or above {folder}: defaults and the environment"
    findings = [Finding(SETTINGS_FILE, "ok", shown_path, "", {"path": str(path) if path else None})]
    for origin in list_origins(settings, environment, folder):
        shown = hide_secrets(origin.value)
        is_exposed = origin.place == SETTINGS_FILE and has_secret(origin.value)
        findings.append(
            Finding(
                origin.name,
                "warning" if is_exposed else "ok",
                f"{shown or 'not set'}   ({origin.place}{', and holds a password' if is_exposed else ''})",
                f"move it to {origin.variable}: files are copied and committed" if is_exposed else "",
                {"value": shown, "from": origin.place},
            )
        )
    return findings


def leave_out_defaults(found: Sequence[tuple[str, Finding]]) -> list[tuple[str, Finding]]:
    """Return findings, with one line in place of the settings that nothing sets."""
    others = [(section, finding) for section, finding in found if not _is_default(finding)]
    count = len(found) - len(others)
    if not count:
        return others
    note = Finding("defaults", "ok", f"{count} settings are not set; to see them: lorry doctor --all")
    end = sum(section == SECTION for section, _ in others)
    return [*others[:end], (SECTION, note), *others[end:]]


def _is_default(finding: Finding) -> bool:
    return finding.level == "ok" and finding.details.get("from") == DEFAULT
