"""Pages and pictures of attention and attributions: what is in them, escaped, and nothing from elsewhere."""

import base64
import json
import re
import struct
import xml.etree.ElementTree
import zlib

import numpy as np
import pytest

from t5x_lite.core.errors import UsageError
from t5x_lite.research import attention_page, attribution_page, pictures

NASTY = ['<s>', ' </script><img src=x>', ' "quoted" &amp;', '\u2028']


def row(layers=2, heads=3):
  maps = np.random.default_rng(0).dirichlet(np.ones(4), size=(layers, heads, 4)).astype(np.float32)
  numbers = {'encoder': list(range(layers))}
  return {'text': 'a <b>', 'tokens': {'encoder': NASTY}, 'layers': numbers, 'attention': {'encoder': maps}}


def test_the_page_holds_the_maps_and_nothing_ends_its_script():
  page = attention_page.render('Of <it>', [row()])
  data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])
  (text,) = data['texts']
  assert text['tokens']['encoder'] == NASTY and text['shown'] == 'a <b>'
  own = text['maps']['encoder']
  values = np.frombuffer(base64.b64decode(own['values']), np.uint8).reshape(own['shape'])
  np.testing.assert_allclose((values / 255) ** 2, row()['attention']['encoder'], atol=5e-3)
  assert page.count('</script>') == 2 and '<img' not in page and 'Of &lt;it&gt;' in page
  assert not re.search(r'(src|href)\s*=\s*["\']?(https?:)?//', page)


def test_a_page_of_too_much_or_of_nothing_is_refused(monkeypatch):
  with pytest.raises(UsageError, match='no texts'):
    attention_page.render('x', [])
  monkeypatch.setattr(attention_page, 'MOST_VALUES', 90)
  with pytest.raises(UsageError, match='a page of 96 probabilities: expected at most 90; choose layers'):
    attention_page.render('x', [row()])


def test_a_png_is_read_back():
  pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
  data = pictures.png(pixels)
  assert data[:8] == b'\x89PNG\r\n\x1a\n' and struct.unpack('>II', data[16:24]) == (7, 5)
  start = data.index(b'IDAT')
  (size,) = struct.unpack('>I', data[start - 4 : start])
  raw = np.frombuffer(zlib.decompress(data[start + 4 : start + 4 + size]), np.uint8).reshape(5, 22)
  assert not raw[:, 0].any()
  np.testing.assert_array_equal(raw[:, 1:].reshape(5, 7, 3), pixels)
  assert struct.unpack('>I', data[start + 4 + size : start + 8 + size])[0] == zlib.crc32(
    b'IDAT' + data[start + 4 : start + 4 + size]
  )


def test_more_attention_is_darker():
  shades = pictures.colours(np.linspace(0, 1, 50)).astype(int).sum(axis=-1)
  assert np.all(np.diff(shades) < 0)


def test_a_picture_is_xml_with_a_map_for_each_layer_and_head():
  svg = '{http://www.w3.org/2000/svg}'
  grid = xml.etree.ElementTree.fromstring(pictures.attention(row()))
  assert len(grid.findall(f'.//{svg}image')) == 6
  assert {'layer 1', 'head 2'} <= {text.text for text in grid.iter(f'{svg}text')}
  single = xml.etree.ElementTree.fromstring(pictures.attention(row(1, 1)))
  assert len(single.findall(f'.//{svg}image')) == 1
  assert NASTY[1] in {text.text for text in single.iter(f'{svg}text')}


def test_attributions_are_shaded_by_sign_and_size():
  target = {'target': '<pos>', 'position': 1, 'score': 2.0, 'baseline_score': -1.0, 'completeness_gap': 1e-5}
  values = {'encoder': np.asarray([0.0, 2.0, -1.0, 0.5], np.float32)}
  rows = [{'text': 'a <b>', 'tokens': {'encoder': NASTY}, 'method': 'integrated_gradients', 'baseline': 'padding'}]
  page = attribution_page.render('x', [{**rows[0], 'attributions': [{**target, 'values': values}]}])
  assert '<b>&lt;pos&gt;</b>' in page and '<img' not in page and 'a &lt;b&gt;' in page
  shades = re.findall(r'<span style="background:rgba\((\d+),\d+,\d+,([\d.]+)\)" title', page)
  assert [(red, float(share)) for red, share in shades[1:]] == [('20', 0.7), ('163', 0.35), ('20', 0.175)]
