"""Which machines compute in mixed precision."""
from typing import NamedTuple

import pytest

from mentormix import precision
from mentormix import runtime
from mentormix.messages import UserError


class _Device(NamedTuple):
  device_type: str
  physical_device_desc: str


@pytest.mark.parametrize('is_1_15,gpus,fits', [
    (True, [7.0], True), (True, [7.5, 7.0], True), (True, [6.1], False),
    (True, [], False), (False, [8.0], True), (False, [9.0, 7.0], False),
    (False, [], True)])
def test_which_machine_has_mixed_precision(monkeypatch, is_1_15, gpus, fits):
  monkeypatch.setattr(runtime, 'IS_1_15', is_1_15)
  monkeypatch.setattr(precision, '_gpu_capabilities', lambda: gpus)
  precision.check_precision('float32')
  if fits:
    precision.check_precision('mixed')
  else:
    with pytest.raises(UserError, match='--precision=mixed .*use float32'):
      precision.check_precision('mixed')


@pytest.mark.parametrize('flags,gpus,warns', [
    ('fma avx2', [], True), ('avx512f avx512_bf16', [], False),
    ('amx_bf16 amx_int8', [], False), ('asimd bf16', [], False),
    ('avx2', [8.0], False), (None, [], False)])
def test_a_slow_bfloat16_warns(monkeypatch, tmp_path, capsys, flags, gpus,
                               warns):
  facts = tmp_path / 'cpuinfo'
  if flags is not None:
    facts.write_text(f'processor\t: 0\nflags\t\t: fpu {flags}\nbugs\t\t:\n')
  monkeypatch.setattr(precision, '_CPU_FACTS', str(facts))
  monkeypatch.setattr(runtime, 'IS_1_15', False)
  monkeypatch.setattr(precision, '_gpu_capabilities', lambda: gpus)
  precision.check_precision('float32')
  assert not capsys.readouterr().out
  precision.check_precision('mixed')
  assert ('warning: --precision=mixed' in capsys.readouterr().out) == warns


def test_gpu_capabilities_come_from_descriptions(monkeypatch):
  monkeypatch.setattr(runtime.device_lib, 'list_local_devices', lambda config: [
      _Device('CPU', ''), _Device('XLA_GPU', 'device: XLA_GPU device'),
      _Device('GPU', 'device: 0, name: Tesla V100-SXM2-16GB, pci bus id: '
                    '0000:00:1e.0, compute capability: 7.0')])
  assert precision._gpu_capabilities() == [7.0]
