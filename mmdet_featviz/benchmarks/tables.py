"""Tables: prints the results of the benchmarks, and whether they reach their targets."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Sequence

TARGETS = {  # ratio or megabytes: the bound, and whether values have to be above it
    'draw_featmap squeeze_mean / ours': (200, True),
    'draw_featmap select_max / ours': (200, True),
    'recipe / ours': (6, True),
    'ours / floor': (1.5, False),
    'ours / floor of our reduction': (1.5, False),
    'ATSS-R50 workers=auto / without': (1.02, False),
    'YOLOX-nano workers=auto / without': (1.3, False),
    'YOLOX-nano workers=auto - without / floor, processor': (1.6, False),
    'odam in a test / plain test step': (1.5, False),
    'forward passes per second, D-RISE / plain loop': (0.9, True),
    'YOLOX-nano: peak with - without': (100, False),
    'ATSS-R50: peak with - without': (100, False),
    'page: first image drawn, ms': (1000, False),
    'page: frame while scrolling, median ms': (17, False),
    'page: process of the tab after 200 images, MB': (500, False),
}


def print_table(title: str, rows: Iterable[Sequence[Any]]) -> None:
    """Print rows of a name and cells below a title."""
    rows = list(rows)
    print(f'\n{title}')
    width = max(len(str(row[0])) for row in rows)
    for name, *cells in rows:
        print(f'  {str(name):{width}}  ' + '  '.join(str(cell) for cell in cells))


def print_results(part: str, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the tables of one part of the benchmark."""
    if 'seconds' in results:
        rows = [
            (name, f'{elapsed:9.4f}', f'{processor:9.4f}') for name, (elapsed, processor) in results['seconds'].items()
        ]
        print_table(f'{part}: median seconds, elapsed and of all processors', rows)
        rows = [(name, f'{ratio:8.3f}', compare_with_target(name, ratio)) for name, ratio in results['ratios'].items()]
        print_table(f'{part}: ratios', rows)
    elif 'megabytes' in results:
        rows = [
            (name, f'{value:8.1f}', compare_with_target(name, value)) for name, value in results['megabytes'].items()
        ]
        print_table(f'{part}: megabytes', rows)
        print_table(f'{part}: threads and open files, before and after', results['left'].items())
    elif 'figures' in results:
        rows = [(name, f'{value:8.1f}', compare_with_target(name, value)) for name, value in results['figures'].items()]
        print_table(part, rows)
    else:
        for name, series in results['milliseconds'].items():
            print_table(f'{part}: {name}, ms', [(size, f'{value:8.1f}') for size, value in series.items()])


def compare_with_target(name: str, value: float) -> str:
    """The target of a value and whether it is reached; empty if it has no target."""
    if name not in TARGETS:
        return ''
    bound, is_lower_bound = TARGETS[name]
    reached = value >= bound if is_lower_bound else value <= bound
    return f'{"at least" if is_lower_bound else "at most"} {bound}: {"reached" if reached else "missed"}'
