"""The results as Markdown: a table for each model, and one of what is to be shown."""

_HEADER = ("tool", "accuracy", "CPU s", "wall s", "peak MB", "file MB", "latency ms")
_SUMMARY = (
    *("model", "float", "onnxq", "best peer", "least CPU of its equals", "of those set by hand"),
    "least memory",
)


def model_table(name, results):
    """One line for each tool."""
    rows = [_HEADER]
    for tool, found in results.items():
        if found["status"] != "ok":
            took = (found["status"], found["cpu_s"], found["wall_s"], found["rss_mb"], "", "")
        else:
            accuracy = found["accuracy"]
            took = (
                accuracy if isinstance(accuracy, str) else f"{accuracy:.4f}",
                *(found.get(key, "") for key in ("cpu_s", "wall_s", "rss_mb")),
                f"{found['file_mb']:.2f}",
                found.get("latency_ms", ""),
            )
        rows.append((tool, *map(str, took)))
    return f"### {name}\n\n{_markdown(rows)}"


def summary(all_results, noise):
    """onnxq beside the best peer, and the fastest of those as good as it, and the leanest.

    How many times its CPU time and memory they take is in brackets. Peers set by hand are apart.
    """
    rows = [_SUMMARY]
    for name, results in all_results.items():
        float_ = results["float"]
        peers = {t: r for t, r in results.items() if _is_peer(t) and _is_good(r)}
        for tool in (t for t in results if t.startswith("onnxq") and _is_good(results[t])):
            ours = results[tool]
            equals = {
                t: r for t, r in peers.items() if r["accuracy"] >= ours["accuracy"] - noise[name]
            }
            by_hand = {t: r for t, r in equals.items() if t.endswith("by hand")}
            by_default = {t: r for t, r in equals.items() if t not in by_hand}
            rows.append(
                (
                    name,
                    f"{float_['accuracy']:.4f}",
                    f"{tool.removeprefix('onnxq ')}: {ours['accuracy']:.4f}, "
                    f"{ours['cpu_s']} s, {ours['rss_mb']:.0f} MB",
                    _best(peers, "accuracy", -1, "{:.4f}"),
                    _best(by_default, "cpu_s", 1, "{:.1f} s", ours),
                    _best(by_hand, "cpu_s", 1, "{:.1f} s", ours),
                    _best(peers, "rss_mb", 1, "{:.0f} MB", ours),
                )
            )
    return f"### Summary\n\n{_markdown(rows)}"


def _best(results, key, sign, shown, ours=None):
    if not results:
        return "none"
    tool = min(results, key=lambda t: sign * results[t][key])
    times = "" if ours is None else f" ({results[tool][key] / ours[key]:.1f}x)"
    return f"{tool}: {shown.format(results[tool][key])}{times}"


def _is_peer(tool):
    return tool != "float" and not tool.startswith("onnxq")


def _is_good(result):
    return result["status"] == "ok" and not isinstance(result["accuracy"], str)


def _markdown(rows):
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)
