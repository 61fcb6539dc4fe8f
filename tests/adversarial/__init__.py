"""An adversarial suite for `mixmerge.sandbox`, which it treats as a black box through `judge` and `run_programs`.

| module | what stands there |
|---|---|
| `program` | what an attack, an honest program and a problem are |
| `forging` | a wrong program that tries to be judged right |
| `stealing` | a program that looks for the answers, or for what else it should not see |
| `replying` | a program that misuses the line to its judge, or sends it values that are hard to bear |
| `harming` | bombs, floods, survivors, escapes |
| `honest` | programs that a strict sandbox may be tempted to refuse |
| `naive` | three ways to judge that are in wide use, to see that the attacks are real |
| `host` | an ordinary user, refused namespaces: for real, in a process of its own |
| `stage` | runs all that in such a process and reports verdicts and what was left behind |

Only the standard library is imported outside the test module, because an ordinary user may have nothing else.
"""
