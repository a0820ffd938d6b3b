import t5x_lite.tasks
from t5x_lite.data import mixtures, task


def test_all_of_the_catalogue_is_found_by_name():
  t5x_lite.tasks.load()
  names = set(task.names())
  assert names >= {'embedded_text', 'c4_en', 'wikipedia_en', 'glue_cola', 'super_glue_boolq', 'squad', 'race'}
  assert names >= {'cnn_dailymail', 'wnut17', 'semeval2010_task8', 'casie', 'banking77', 'dialogsum'}
  for name in names:
    entry = task.get(name)
    assert entry.name == name
    if isinstance(entry, mixtures.Mixture):
      assert task.tasks(entry), name  # its members exist
