"""The commands in README.md, CONTRIBUTING.md, SECURITY.md and docs/, and for each of them what runs it."""

from __future__ import annotations

import re
from pathlib import Path

from project_maker import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
PROGRAMS = (
    "createdb|curl|docker|dvc|export|git|make|mkdocs|mlflow|pip|pipeline|python|ray|sbatch|scancel|source|squeue|srun|ssh"
    "|torchrun"
)
LINE = re.compile(rf"^(?:\$ )?((?:{PROGRAMS}) .*?)(?:  +#.*)?$", re.MULTILINE)
FENCED = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^    .*\n?)+", re.MULTILINE)
IN_WORDS = re.compile(r"`([^`]+)`")

# By tests/end_to_end/test_readme.py, in a project that has run once.
RUN = (
    "make repro",
    "make setup",
    "make PYTHON=python3.12 setup",
    "source .venv/bin/activate",
    "dvc repro",
    "dvc checkout",
    "dvc metrics diff",
    "dvc params diff",
    "dvc plots diff",
    "dvc exp show",
    "dvc exp run -S data=table -S data.path=/home/me/irises.csv -S data.label=species",
    "dvc exp run -S expand=deform -S expand.copies=9",
    "git checkout params.yaml dvc.lock",
    "git checkout params.yaml dvc.lock && dvc repro",
    "git checkout COMMIT && dvc checkout",
    "pipeline train --cfg job",
    "pipeline evaluate evaluate.model_folder=outputs/train/2026-01-31_12-00-00-000000/models",
    "pipeline compare HEAD workspace",
    "pipeline champion",
    "pipeline predict page.png digits/",
    "pipeline predict data/processed/test/images.npy model=models --format csv",
    "pipeline export",
    "pipeline export model=models --out digits.onnx",
    "pipeline compare @champion workspace",
    'python -c "import torch; print(torch.version.cuda)"',
)  # fmt: skip

SLURM = "tests/end_to_end/test_slurm.py::test_a_sweep_on_slurm_is_a_parent_with_its_children"
SRUN = "tests/end_to_end/test_slurm.py::test_srun_starts_the_processes_of_one_training"
DEVICES = "tests/end_to_end/test_devices.py::test_under_dvc_two_processes_are_one_training"
MACHINES = "tests/end_to_end/test_devices.py::test_two_machines_by_torchrun_are_one_training"
TWO_SWEEPS = "tests/end_to_end/test_compare.py::test_two_sweeps"
LARGE_SERVER = "tests/faults/test_large_server.py::test_the_pipeline_and_a_sweep_are_there"
EXTENDING = "tests/end_to_end/test_extending.py::test_the_blocks_of_the_page_make_what_it_says"
PICTURES = "tests/end_to_end/test_book.py::test_fashion_mnist_from_published_files_and_from_pictures"
SITE = "tests/end_to_end/test_site.py::test_the_site_is_built_strictly_and_asks_no_other_host"
BY_HAND = "tests/end_to_end/test_by_hand.py::test_a_run_by_hand_writes_only_below_outputs"
BOOK = "tests/end_to_end/test_book.py::test_the_book_s_network_gets_the_book_s_accuracy"
OVERRIDES = "tests/end_to_end/test_experiments.py::test_any_override_reaches_the_run_and_params_yaml_is_the_composition"
CHAMPION = "tests/end_to_end/test_champion.py::test_promoted_rolled_back_and_promoted_again"
SERVE = "tests/end_to_end/test_serve.py::test_the_request_of_the_docs_is_answered"
DEMO = "tests/end_to_end/test_demo.py::test_a_digit_is_drawn"
SMALLEST = "tests/test_benchmarks.py::test_the_smallest_form_makes_the_tables_of_the_results"
# The test that runs it, or one that runs the same where it needs what CI has not; or what that is.
ELSEWHERE = {
    "git clone … && cd …": "what a person did to read this",
    "git status": "tests/end_to_end/test_what_runs.py::test_the_same_commit_elsewhere_gives_the_same_bytes",
    "pipeline COMMAND --help": "tests/commands/test_help.py::test_help_of_a_command_is_asked_for_in_several_ways",
    "make test": "this very run",
    "make test-all": "hours",
    "make newest": "needs the package index; make test-all calls it",
    "make warm": "tests/system/test_fork.py::test_its_commands_end_with_it_and_it_ends_when_it_is_idle",
    "pipeline warm --stop":
        "tests/system/test_fork.py::test_its_commands_end_with_it_and_it_ends_when_it_is_idle",
    "export PIPELINE_WARM=1": "tests/end_to_end/test_warm.py, with a folder",
    "make lint": "what .ci/run calls",
    "make peers": "what .ci/run calls",
    "make ui": "tests/tracking/test_ui.py::test_the_server_answers_slim_and_is_gone_after_sigint_and_sigterm",
    "make docs": SITE,
    "make help": "tests/end_to_end/test_readme.py::test_make_help_names_every_target",
    "make bench": f"{SMALLEST}; the whole takes many minutes",
    "python benchmarks/answers.py --write --before FOLDER": SMALLEST,
    "python benchmarks/sweep.py --write": SMALLEST,
    "python benchmarks/tracking.py --write": SMALLEST,
    "make lock": "needs the package index, and may change the lock files",
    "pip install -e '.[slurm]'": "needs the package index; the lock has it",
    "pip install 'dense-pipeline[server]'": "needs the package index; the lock has it",
    "dvc exp run": "tests/end_to_end/test_by_hand.py::test_own_data_that_changed_is_read_again",
    "dvc exp run -S …": "tests/end_to_end/test_by_hand.py::test_own_data_that_changed_is_read_again",
    "dvc exp run -S data=…": "tests/end_to_end/test_by_hand.py::test_own_data_that_changed_is_read_again",
    "dvc exp run -S data=image_folder -S data.path=/home/me/leaves": PICTURES,
    "dvc exp run -S data=image_folder -S data.path=/home/me/leaves -S tracking.experiment=leaves":
        f"{PICTURES}, without the experiment's name",
    "dvc exp run -S experiment=book": f"{BOOK}, on the whole of MNIST",
    "dvc exp run -S experiment=book -S seed=N": f"{BOOK}, with one seed",
    "dvc exp run -S experiment=fast": "the whole of MNIST; benchmarks/fast.py, "
        "tests/config/test_conf_files.py::test_every_experiment_composes_and_changes_something",
    "dvc exp run -S seed=N": OVERRIDES,
    "dvc exp run -S optimizer=adam -S optimizer.lr=0.01": OVERRIDES,
    "pipeline adopt ID":
        "tests/end_to_end/test_adopt.py::test_the_best_of_a_sweep_is_the_pipelines_byte_for_byte",
    "pipeline reproduce RUN":
        "tests/end_to_end/test_reproduce.py::test_the_pipelines_run_of_three_commits_ago",
    "dvc repro --force": "tests/end_to_end/test_tracked_run.py::test_a_clean_commit_is_clean_while_dvc_works_on_it",
    "dvc repro --force --single-item train": "tests/end_to_end/test_tracked_run.py::"
        "test_a_clean_commit_is_clean_while_dvc_works_on_it, all stages",
    "pipeline train": BY_HAND,
    "pipeline train 'model.units=[512,256]' model.dropout=0.2": BY_HAND,
    "pipeline train trainer=ddp_cpu": f"{DEVICES}, by hand in the tests after it",
    "pipeline train -m model.units=64,32 optimizer=rmsprop,adam trainer.num_epochs=3 sweep.seeds=2":
        "tests/end_to_end/test_adopt.py::test_the_best_of_a_sweep_is_the_pipelines_byte_for_byte, fewer epochs",
    "pipeline train trainer.num_epoch=3":
        "tests/end_to_end/test_readme.py::test_the_mistake_in_the_readme_is_answered_as_it_says",
    "pipeline train -m model.units=64,128 optimizer=rmsprop,adam sweep.seeds=3":
        "tests/end_to_end/test_adopt.py::test_the_best_of_a_sweep_is_the_pipelines_byte_for_byte, fewer epochs",
    "pipeline train -m hydra/sweeper=optuna hydra.sweeper.n_trials=30 "
    "'optimizer.lr=tag(log,interval(1e-4,1e-1))' 'model.units=int(interval(32,512))' hydra.sweeper.pruner=median":
        "tests/end_to_end/test_optuna.py::test_pruned_trials_end_early_and_say_so, fewer trials",
    "pipeline champion 3": CHAMPION,
    "pipeline champion --rollback": CHAMPION,
    "make serve": SERVE,
    "pipeline serve model=@champion --port 5001": SERVE,
    "curl http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' -d @example.json": SERVE,
    "make demo": DEMO,
    "pipeline ui --sweep ID":
        "tests/end_to_end/test_sweep_in_browser.py::test_the_table_of_a_sweep_shows_its_jobs_best_first",
    "pipeline compare": f"{TWO_SWEEPS}, with two names",
    "pipeline compare A B [C …]": TWO_SWEEPS,
    "pipeline compare ID ID": TWO_SWEEPS,
    "pipeline compare s5a729ecb80c sda693eb1f03": TWO_SWEEPS,
    "pipeline train -m model.units=32,64 sweep.seeds=3": f"{TWO_SWEEPS}, fewer epochs",
    "pipeline train -m model.units=256,512 sweep.seeds=3": f"{TWO_SWEEPS}, fewer epochs",
    "pipeline train optimizer=lion": EXTENDING,
    "pipeline train -m optimizer=rmsprop,lion sweep.seeds=2": f"{EXTENDING}, the optimizer alone",
    "pipeline train model=residual": EXTENDING,
    "python -m pytest tests/config": "what .ci/run calls, among the others",
    "python -m pytest -m slow tests/end_to_end/test_readme.py": "what .ci/run calls, among the others",
    "python -m pytest tests/config tests/model tests/test_dvc_yaml.py": "what .ci/run calls, among the others",
    # tracking servers
    "mlflow server --host 127.0.0.1 --port 5001 --backend-store-uri sqlite:///server.db "
    "--artifacts-destination ./server_files": "tests/faults/test_outages.py::test_all_runs_are_copied_once",
    "mlflow server --host 127.0.0.1 --port 5001 --backend-store-uri postgresql://USER@127.0.0.1/mlflow "
    "--artifacts-destination s3://BUCKET/runs": LARGE_SERVER,
    "createdb mlflow": f"{LARGE_SERVER} makes a cluster of its own",
    "export MLFLOW_TRACKING_URI=http://127.0.0.1:5001": LARGE_SERVER,
    "export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…": LARGE_SERVER,
    "pipeline sync": LARGE_SERVER,
    "export PIPELINE_MIRROR=<folder or address>": BOOK,
    "export PIPELINE_MIRROR=FOLDER": BOOK,
    "ssh -L": "another machine",
    "ssh -L 5000:127.0.0.1:5000 HOST": "another machine",
    # several GPUs, several machines, clusters
    "pipeline train trainer=ddp trainer.devices=4": f"four GPUs; on two processes {DEVICES}",
    "pipeline train trainer=fsdp trainer.devices=4": "four GPUs",
    "dvc exp run -S trainer=ddp -S trainer.devices=4": f"four GPUs; on two processes {DEVICES}",
    "torchrun --nnodes=2 --nproc-per-node=4 --rdzv-backend=c10d --rdzv-endpoint=FIRST_MACHINE:29500 -m pipeline.train "
    "trainer=ddp trainer.devices=4 trainer.num_nodes=2": f"two machines with four GPUs each; on loopback {MACHINES}",
    "srun pipeline train trainer=ddp trainer.devices=4 trainer.num_nodes=2":
        f"two machines with four GPUs each, under SLURM; on one node's CPU {SRUN}",
    "pipeline train -m hydra/launcher=submitit_slurm hydra.launcher.partition=gpu model.units=64,128 "
    "seed=0,1":
        f"a cluster with a partition `gpu`; on one node's CPU {SLURM}",
    "squeue --name=train-3076cc54": f"a cluster's queue; {SLURM}",
    'sbatch --wrap="python -m …"': "a cluster's queue",
    "ray job submit --entrypoint-num-gpus 8 -- bash -c 'cd /shared/project && pipeline train -m trainer=gpu "
    "model.units=64,128 seed=0,1'": "a Ray cluster with eight GPUs; never run, and said so there",
}  # fmt: skip


def commands_of(text: str) -> list[str]:
    """The commands of a page: lines of code blocks without a language or of a shell's, and `code` in its sentences."""
    blocks = [block for language, block in FENCED.findall(text) if language in ("", "bash", "sh", "console")]
    rest = FENCED.sub("", text)
    blocks += ["\n".join(line[4:] for line in block.splitlines()) for block in INDENTED.findall(rest)]
    found = [line for block in blocks for line in LINE.findall(re.sub(r" *\\\n\s*", " ", block))]
    words = [re.sub(r"\s+", " ", code) for code in IN_WORDS.findall(INDENTED.sub("", rest))]
    return [*found, *(code for code in words if re.match(rf"(?:{PROGRAMS}) ", code))]


def commands() -> dict[str, list[str]]:
    """Each command once, and the pages that it is on."""
    pages: dict[str, list[str]] = {}
    for page in PAGES:
        for command in dict.fromkeys(commands_of(page.read_text(encoding="utf-8"))):
            pages.setdefault(command, []).append(str(page.relative_to(ROOT)))
    return pages


def settings_of(text: str) -> list[str]:
    """`group.key=value` and `group=choice` in a page's sentences and tables."""
    return re.findall(r"`'?([a-z_]+(?:\.[a-z_]+)*=[^`]*?)'?`", FENCED.sub("", text))


def path_of(test: str) -> tuple[Path, str]:
    """The file and function of `tests/…::test_…`."""
    file, _, function = test.partition("::")
    return ROOT / file, function
