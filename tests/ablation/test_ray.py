"""A Ray cluster of three nodes, one of which is lost in the middle."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from support.ablations import trials, wait_until, write_study

from mmse.ablation.engines import run_on_ray
from mmse.ablation.folders import Folders
from mmse.ablation.scheduler import run
from mmse.ablation.study import read_study
from mmse.ablation.variants import resolve
from mmse.utils.errors import UserError

pytest_plugins = ('support.engine_fixtures',)

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(monkeypatch):
    """A head without CPUs and two nodes with one each, so that every trial is on a node."""
    ray = pytest.importorskip('ray', reason='Ray is brought by make setup')
    from ray.cluster_utils import Cluster

    monkeypatch.setenv('RAY_DISABLE_MEMORY_MONITOR', '1')
    cluster = Cluster(
        initialize_head=True, head_node_args={'num_cpus': 0, 'include_dashboard': False}
    )
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_lost_node_loses_no_trial_and_counts_none_twice(cluster, tmp_path, tiny_configs, capsys):
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    study = read_study(write_study(tmp_path, tiny_configs['seg']))

    def lose_a_node():
        # Each node has a trial then, which takes longer to start than the other one to follow.
        wait_until(lambda: len(list(tmp_path.glob('work/*/log.txt'))) >= 2)
        cluster.remove_node(nodes[0], allow_graceful=False)

    folders = Folders(tmp_path / 'results', (tmp_path / 'work').resolve())
    engine = partial(run_on_ray, address=None, cpus=1, gpus=0)
    with ThreadPoolExecutor(1) as beside:
        lost = beside.submit(lose_a_node)
        assert run(study, resolve(study), folders, engine) == []
        lost.result()
    records = trials(tmp_path)
    assert len(records) == 4
    assert all(record['status'] == 'finished' for record in records.values())
    assert len({(r['arm'], r['seed']) for r in records.values()}) == 4
    out = capsys.readouterr().out
    assert [f'[{n}/4]' in out for n in range(1, 6)] == [True] * 4 + [False]
    logs = [log.read_text() for log in tmp_path.glob('work/*/log.txt')]
    assert [log.count('Iter(train) [8/8]') for log in logs] == [1] * 4
    # The lost trial was started a second time, on the node that was left.
    assert sorted(log.count('--- trial started on') for log in logs) == [1, 1, 1, 2]


def test_a_trial_that_fits_no_node_is_refused(cluster, tmp_path):
    cluster.add_node(num_cpus=1)
    with pytest.raises(UserError, match='no node of the Ray cluster has the 2 GPU'):
        next(run_on_ray([tmp_path], None, 1, 2))


@pytest.mark.parametrize('address', ['127.0.0.1:1', 'ray://127.0.0.1:1', 'auto', 'here:x'])
def test_an_address_where_no_cluster_is_is_refused(address, tmp_path):
    pytest.importorskip('ray')
    with pytest.raises(UserError, match=f'--address {address}: no Ray cluster answers'):
        next(run_on_ray([tmp_path], address, 1, 0))


def test_without_ray_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr('mmse.ablation.engines.find_spec', lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'mmse\[ray\]'"):
        next(run_on_ray([tmp_path], None, 1, 0))
