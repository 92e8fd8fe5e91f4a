"""The attention of the query that made a box, against decoders whose attention is known."""

import itertools

import numpy as np
import pytest
import torch
from conftest import noise
from explained import narrow_retinanet, state_of, write_image
from query_detectors import MASKS, batch_of, cells_of_points, query_detector, scores_of_queries, spied

from mmdet_featviz import explain
from mmdet_featviz.apis.explain import explain_batch

DENSE = 'DETR', 'ConditionalDETR', 'DABDETR'
DEFORMABLE = 'DeformableDETR', 'DeformableDETR in two stages', 'DINO', 'DDQDETR'
IMAGES = noise(96, 128), noise(128, 96, seed=1)  # each is padded, on another side


@pytest.mark.parametrize('name', [*DENSE, *DEFORMABLE, *MASKS])
def test_the_map_is_that_of_the_query_that_made_the_box(name):
    model, pipeline = query_detector(name)
    data = batch_of(pipeline, *IMAGES)
    with spied(model) as seen, torch.no_grad():
        plain = model.test_step(batch_of(pipeline, *IMAGES))
    weights = cells_of_points(*seen['points']) if name in DEFORMABLE else seen['weights']
    before, queries = state_of(model), set()
    explained = explain_batch(model, data, 'attention', 'top 6')
    assert state_of(model) == before
    for image, (sample, explanations) in enumerate(zip(plain, explained)):
        found, scores = sample.pred_instances, scores_of_queries(model, seen, sample, image)
        order = found.scores.argsort(descending=True, stable=True)[:6]
        np.testing.assert_array_equal([one.bbox for one in explanations], found.bboxes[order].numpy())
        for one in explanations:
            ((query,),) = ((scores[:, one.label] - one.score).abs() < 1e-6).nonzero().T.tolist()
            heat = np.concatenate([level.values.ravel() for level in one.snapshot.levels])
            np.testing.assert_allclose(heat, weights[image, query], atol=1e-6)
            assert heat.sum() == pytest.approx(1, abs=1e-5) or name in DEFORMABLE
            assert bool(one.points) == (name in DEFORMABLE)
            assert one.heatmap.shape == IMAGES[image].shape[:2]
            assert np.isfinite(one.heatmap).all()
            queries.add(query)
    assert len(queries) > 2


class OneCell(torch.nn.MultiheadAttention):
    """Query q looks at one cell, in the first three rows and columns of four."""

    def forward(self, query, key, value, **kwargs):
        assert len(key) == 16
        hidden = torch.ones(len(query), 16, dtype=torch.bool)
        for number in range(len(query)):
            row, column = self.cell_of(number)
            hidden[number, 4 * row + column] = False
        return super().forward(query, key, value, **{**kwargs, 'attn_mask': hidden})

    @staticmethod
    def cell_of(query):
        return query // 3 % 3, query % 3


@pytest.mark.parametrize('flip', [False, True])
def test_attention_that_is_forced_on_one_cell(flip):
    """Images of 192 x 256 and 256 x 192, which are halved and padded to 128 x 128: cells of 64 pixels of the image."""
    model, pipeline = query_detector('DETR')
    model.decoder.layers[-1].cross_attn.attn.__class__ = OneCell
    images = [np.tile(image, (2, 2, 1)) for image in IMAGES]
    with spied(model) as seen, torch.no_grad():
        samples = model.test_step(batch_of(pipeline, *images, flip=flip))
    explained = explain_batch(model, batch_of(pipeline, *images, flip=flip), 'attention', 'top 4', align='center')
    for image, (pixels, sample) in enumerate(zip(images, samples)):
        scores = scores_of_queries(model, seen, sample, image)
        for one in explained[image]:
            ((query,),) = ((scores[:, one.label] - one.score).abs() < 1e-6).nonzero().T.tolist()
            assert one.heatmap.shape == pixels.shape[:2]
            for row, column in itertools.product(range(3), range(3)):
                x, y = 64 * column + 32, 64 * row + 32
                x = pixels.shape[1] - 1 - x if flip else x
                expected = float(OneCell.cell_of(query) == (row, column))
                assert one.values('decoder.layers.1_0')[row, column] == expected
                assert one.heatmap[y, x] == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize('flip', [False, True])
def test_points_without_offsets_are_at_the_reference_of_the_query(flip):
    """Images of 256 x 384 and 384 x 256 are halved and padded to 192 x 192: whole cells at all four levels."""
    model, pipeline = query_detector('DeformableDETR', scale=(192, 128))
    for parameter in model.decoder.layers[-1].cross_attn.sampling_offsets.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        references = model.reference_points_fc(model.query_embedding.weight[:, :256]).sigmoid().numpy()
    images = noise(256, 384), noise(384, 256, seed=1)
    with spied(model) as seen, torch.no_grad():
        samples = model.test_step(batch_of(pipeline, *images, flip=flip))
    explained = explain_batch(model, batch_of(pipeline, *images, flip=flip), 'attention', 'top 4', align='center')
    for image, (pixels, sample) in enumerate(zip(images, samples)):
        height, width = pixels.shape[:2]
        scores = scores_of_queries(model, seen, sample, image)
        for one in explained[image]:
            ((query,),) = ((scores[:, one.label] - one.score).abs() < 1e-6).nonzero().T.tolist()
            x, y = references[query] * (width, height)
            x = width - x if flip else x
            np.testing.assert_allclose([point[:2] for point in one.points], [(x, y)] * 128, atol=0.05)
            assert sum(point.weight for point in one.points) == pytest.approx(1)
            weights = seen['points'][2][image, query].mean(0).sum(1)
            for number, name in enumerate(one.levels):
                own = [point.weight for point in one.points if point.level == name]
                assert sum(own) == pytest.approx(float(weights[number]), abs=1e-6)
            assert (one.overlay()[int(y), int(x)] == 255).all()
            assert (one.overlay('decoder.layers.1_2')[int(y), int(x)] == 255).all()


def test_which_decoder_layers():
    model, pipeline = query_detector('DETR')
    data = batch_of(pipeline, IMAGES[0])
    maps = {}
    for layers in (None, 'decoder.layers.0', 'decoder.layers.1', 'decoder', 'decoder.layers.*', 'decoder.layers.?'):
        ((one,),) = explain_batch(model, data, 'attention', 'top 1', layers=layers)
        maps[layers] = one
    assert list(maps[None].levels) == list(maps['decoder.layers.1'].levels) == ['decoder.layers.1_0']
    np.testing.assert_array_equal(maps[None].heatmap, maps['decoder.layers.1'].heatmap)
    both = maps['decoder.layers.0'].heatmap + maps['decoder.layers.1'].heatmap
    for layers in ('decoder', 'decoder.layers.*', 'decoder.layers.?'):
        assert maps[layers].levels == {'decoder.layers.0_0': 0.5, 'decoder.layers.1_0': 0.5}
        np.testing.assert_allclose(maps[layers].heatmap, both, rtol=1e-5)
    with pytest.raises(ValueError, match="decoder layers, decoder.layers.0, decoder.layers.1, which 'neck' is not"):
        explain_batch(model, data, 'attention', layers='neck')
    with pytest.raises(ValueError, match="unknown layer 'decoder.layers.9'"):
        explain_batch(model, data, 'attention', layers='decoder.layers.9')


def test_candidates_and_training_mode():
    """All pairs of query and class are candidates; in training mode, DINO would add queries of denoising."""
    model, pipeline = query_detector('DINO')
    data = batch_of(pipeline, IMAGES[0])
    ((expected,),) = explain_batch(model, data, 'attention', 'top 1')
    model.train()
    box = 'box ' + ' '.join(map(str, expected.bbox))
    ((one,),) = explain_batch(model, data, 'attention', [f'{box} {expected.label}'])
    assert model.training
    np.testing.assert_array_equal(one.heatmap, expected.heatmap)


def test_a_score_of_one_has_a_query_too():
    """It has no gradient, but its box has."""
    model, pipeline = query_detector('DETR')
    torch.nn.init.normal_(model.bbox_head.fc_cls.weight, std=100)
    with spied(model) as seen, torch.no_grad():
        model.test_step(batch_of(pipeline, IMAGES[0]))
        head, states = model.bbox_head, model.decoder.post_norm(seen['outputs'])[0]
        centers, sizes = head.fc_reg(head.activate(head.reg_ffn(states))).sigmoid().split(2, 1)
        boxes = torch.cat([centers - sizes / 2, centers + sizes / 2], 1).clamp(0, 1) * torch.tensor([128, 96, 128, 96])
    (explained,) = explain_batch(model, batch_of(pipeline, IMAGES[0]), 'attention', 'top 3')
    for one in explained:
        assert one.score == 1
        errors = (boxes - torch.tensor(one.bbox)).abs().amax(1)
        assert errors.min() < 1e-3
        heat = one.values('decoder.layers.1_0').ravel()
        np.testing.assert_allclose(heat, seen['weights'][0, int(errors.argmin())], atol=1e-6)


def test_an_empty_mask_has_no_query(monkeypatch):
    model, pipeline = query_detector('Mask2Former')
    data, forward = batch_of(pipeline, IMAGES[0]), model.panoptic_head.forward
    empty = slice(0, 6)

    def without_masks(*args):
        classes, masks = forward(*args)
        masks[-1][:, empty] = -1
        return classes, masks

    monkeypatch.setattr(model.panoptic_head, 'forward', without_masks)
    (explained,) = explain_batch(model, data, 'attention', 'all')
    assert {one.heatmap.any() for one in explained} == {True, False}
    for one in explained:
        assert one.heatmap.any() == (one.score > 0)
    empty = slice(None)
    with pytest.raises(ValueError, match='the score of the detections does not depend on any query'):
        explain_batch(model, data, 'attention', 'all')


def test_a_caption_in_several_parts():
    """Grounding DINO decodes once for each part: the attention is that of the part that the box belongs to."""
    pytest.importorskip('transformers')
    model, pipeline = query_detector('GroundingDINO', chunked_size=1)
    calls, sampling = [], []
    model.decoder.register_forward_hook(lambda *args: calls.append(sampling[-1]))
    with spied(model) as seen, torch.no_grad():
        model.decoder.layers[-1].register_forward_hook(lambda *args: sampling.append(seen['points']))
        plain = model.test_step(batch_of(pipeline, IMAGES[0]))[0].pred_instances
    if len(calls) == 1:
        pytest.skip('this mmdet does not divide captions')
    parts = [cells_of_points(*points)[0] for points in calls]
    (explained,) = explain_batch(model, batch_of(pipeline, IMAGES[0]), 'attention', 'all')
    assert {one.label for one in explained} == set(plain.labels.tolist()) == {0, 1}
    for one in explained:
        heat = np.concatenate([level.values.ravel() for level in one.snapshot.levels])
        errors = [np.abs(part.numpy() - heat).max(1).min() for part in parts]
        assert int(np.argmin(errors)) == one.label
        assert errors[one.label] < 1e-6


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    return write_image(tmp_path_factory.mktemp('images'))


def test_a_detector_without_such_a_decoder(image):
    model = narrow_retinanet()
    before = state_of(model)
    with pytest.raises(
        ValueError, match=r"SingleStageDetector has no decoder with .* method='odam' or 'drise' explains"
    ):
        explain(model, image, 'attention')
    assert state_of(model) == before


def test_what_attention_cannot_explain(monkeypatch):
    model, pipeline = query_detector('DETR')
    data, before = batch_of(pipeline, IMAGES[0]), state_of(model)
    with pytest.raises(ValueError, match="a query, which predicts score and box together: use of='score'"):
        explain_batch(model, data, 'attention', of='left')
    with monkeypatch.context() as patch:
        patch.setattr(model.bbox_head, 'predict', torch.no_grad()(model.bbox_head.predict))
        with pytest.raises(ValueError, match="score that DETR predicts carries no gradient to its queries: method='dr"):
            explain_batch(model, data, 'attention')
    mixing = model.bbox_head.fc_cls.register_forward_hook(
        lambda layer, args, output: output + output.mean(2, keepdim=True)
    )
    with pytest.raises(ValueError, match="12 queries of DETR make one detection together, .* method='odam'"):
        explain_batch(model, data, 'attention')
    mixing.remove()
    with monkeypatch.context() as patch:
        predict = model.bbox_head.predict
        patch.setattr(
            model.bbox_head, 'predict', lambda *a, **k: 1 / 0 if torch.is_grad_enabled() else predict(*a, **k)
        )
        with pytest.raises(ZeroDivisionError):
            explain_batch(model, data, 'attention')
    assert state_of(model) == before
