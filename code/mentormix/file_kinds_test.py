"""What a file is that is not what was expected, and which messages say so."""
import io
import tarfile

import pytest

from mentormix import file_kinds
from mentormix import files
from mentormix.data import cifar_archive
from mentormix.data import datasets
from mentormix.mentornet import frozen_graph
from mentormix.mentornet import loss_traces
from mentormix.messages import UserError

POINTER = (b'version https://git-lfs.github.com/spec/v1\n'
           b'oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24'
           b'd17e2393\nsize 12345\n')


@pytest.mark.parametrize('data,kind', [
    (b'', 'an empty file'), (b' \n', 'an empty file'), (POINTER, 'Git LFS'),
    (b'\n<!DOCTYPE HTML PUBLIC', 'a web page'), (b'<html lang="en">', 'a web'),
    (b'\x1f\x8b\x08', 'gzip'), (b'PK\x03\x04', 'zip'), (b'%PDF-1.4', 'a PDF'),
    (b'RIFF\0\0\0\0WEBPVP8 ', 'WebP'), (b'II*\0', 'TIFF'), (b'MM\0*', 'TIFF'),
    (bytes(257) + b'ustar\x0000', 'a tar archive')])
def test_known_kinds(data, kind):
  assert kind in file_kinds.what(data)


@pytest.mark.parametrize('data', [
    b'index,label\n', b'[1, 2]', b'{"a": 1}', b'1\n', b'\n\n1\n', b'\x00\x01',
    b'<', b'html', b'version 2', b' ' * 600 + b'1'])
def test_data_are_not_taken_for_something_else(data):
  assert file_kinds.what(data) is None


@pytest.mark.parametrize('data,kind', [
    (POINTER, 'it is a Git LFS pointer'), (b'', 'it is an empty file'),
    (b'<!doctype html>\n<p>404</p>', 'it is a web page')])
@pytest.mark.parametrize('read', [
    lambda path: files.read_object(path, 'x'), frozen_graph.read_graph,
    loss_traces.read, lambda path: cifar_archive.read(path, 'cifar10'),
    lambda path: list(datasets.read_records(path))])
def test_messages_say_what_a_file_is(data, kind, read, tmp_path):
  path = tmp_path / 'file'
  path.write_bytes(data)
  try:
    assert not read(str(path)) and not data  # No records.
  except UserError as error:
    assert kind in str(error) and str(path) in str(error)


@pytest.mark.parametrize('member,version', [
    ('cifar-10-batches-bin/data_batch_1.bin', 'binary'),
    ('cifar-10-batches-mat/data_batch_1.mat', 'MATLAB')])
def test_other_versions_of_the_archive(member, version, tmp_path):
  path = str(tmp_path / 'a.tar.gz')
  with tarfile.open(path, 'w:gz') as tar:
    tar.addfile(tarfile.TarInfo(member), io.BytesIO())
  with pytest.raises(UserError, match=f'is the {version} version of CIFAR; get '
                                      'the Python version, cifar-10-python'):
    cifar_archive.read(path, 'cifar10')
