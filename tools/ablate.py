"""Ablations: ``python tools/ablate.py plan|run|status|report CONFIG``."""

import argparse
import signal
from functools import partial
from pathlib import Path

from mmengine.config import DictAction

from mmse.ablation.engines import run_locally, run_on_ray
from mmse.ablation.pilot import run_pilot
from mmse.ablation.preview import print_preview
from mmse.ablation.report import status_table, write_report
from mmse.ablation.scheduler import Folders, run
from mmse.ablation.study import read_study, study_name
from mmse.ablation.variants import resolve
from mmse.engine.cli import exit_with_one_sentence
from mmse.utils.errors import UserError


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Plan, run and report an ablation')
    commands = parser.add_subparsers(dest='command', required=True)
    texts = {
        'plan': 'print arms, trials, time and power',
        'run': 'run the trials that have not finished',
        'status': 'print the results so far',
        'report': 'write report.md, report.html and the figures',
    }
    for name, text in texts.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            'config', help='a config like those in configs/ablations/, or mmse::ablations/NAME.py'
        )
        command.add_argument(
            '--results', type=Path, help='folder of results; default: results/ablations/NAME'
        )
        if name in ('plan', 'run'):
            command.add_argument(
                '--cfg-options',
                nargs='+',
                action=DictAction,
                metavar='KEY=VALUE',
                help='override keys of the ablation, such as seeds=4 or grid=full',
            )
            command.add_argument('--work-dir', type=Path, help='default: work_dirs/ablations/NAME')
    commands.choices['plan'].add_argument(
        '--pilot',
        action='store_true',
        help='first train the plain arm and one with attention once, to see whether the plain arm '
        'learns and the attention acts',
    )
    one = commands.choices['run']
    one.add_argument('--engine', choices=['local', 'ray'], default='local')
    one.add_argument('--workers', type=int, default=1, help='local: trials at a time')
    one.add_argument('--address', help='ray: address of a cluster; default: one is started here')
    one.add_argument('--cpus', type=float, default=1, help='ray: CPUs of a trial')
    one.add_argument('--gpus', type=float, default=0, help='ray: GPUs of a trial')
    one.add_argument('--retry-failed', action='store_true', help='run failed trials again')
    one.add_argument(
        '--keep-checkpoints', action='store_true', help='keep those of finished trials'
    )
    return parser.parse_args()


def run_trials(args: argparse.Namespace, folders: Folders) -> None:
    """Run the trials; end with 1 if some have failed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if args.workers < 1:
        raise UserError(f'--workers: {args.workers} given; allowed: 1 or more')
    study = read_study(args.config, args.cfg_options)
    engine = partial(run_locally, workers=args.workers)
    if args.engine == 'ray':
        engine = partial(run_on_ray, address=args.address, cpus=args.cpus, gpus=args.gpus)
    failed = run(
        study,
        resolve(study),
        folders,
        engine,
        retry_failed=args.retry_failed,
        keep_checkpoints=args.keep_checkpoints,
    )
    print(status_table(folders.results))
    if failed:
        raise UserError(
            f'{len(failed)} trials have failed; {folders.results}/trials has their last lines, and '
            '--retry-failed runs them again'
        )


def main() -> None:
    args = parse()
    name = study_name(args.config)
    results = args.results or Path('results/ablations') / name
    if args.command in ('plan', 'run'):
        folders = Folders(results, args.work_dir or Path('work_dirs/ablations') / name)
    if args.command == 'plan':
        study = read_study(args.config, args.cfg_options)
        if args.pilot:
            run_pilot(study, resolve(study), folders)
        print_preview(study, results)
    elif args.command == 'run':
        run_trials(args, folders)
    elif args.command == 'status':
        print(status_table(results))
    else:
        write_report(results)
        print(f'{results}/report.md and {results}/report.html')


if __name__ == '__main__':
    exit_with_one_sentence(main, 'stopped; the same command goes on')
