"""Where patches are taken, how tiles cover a volume, and that image, labels and weights move together."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from sparseseg.contract.box import whole
from sparseseg.network.augmentation import Augmenter, Draw, TrainingVolume, _places, _reach, offsets, position, take_patch
from sparseseg.network.sampling import PatchSampler, WorkingGrid, tile_cores, tile_starts, to_device

CPU = torch.device("cpu")
PLAIN = Draw((0, 0, 0), np.eye(3), None, gain=1, shift=0, noise=0, noise_seed=0, blur=0, with_position=True)


def sampler_of(labels, weighs, classes, strokes=None, stroke_share=0.7):
    """A sampler of a whole volume; without strokes it draws among all that weigh."""
    strokes = weighs if strokes is None else strokes
    sampler = PatchSampler(labels.shape, classes, np.count_nonzero(weighs), np.count_nonzero(strokes), stroke_share)
    sampler.add(whole(labels.shape), labels, weighs, strokes)
    return sampler


def plain(centre):
    return dataclasses.replace(PLAIN, centre_kji=centre)


def own(shape):
    """A working grid that is the volume's own."""
    return WorkingGrid(tuple(shape), tuple(shape))


@dataclasses.dataclass
class Given:
    """What take_patch asks of network.targets.Targets, with a weight of its own for every voxel."""

    labels: torch.Tensor
    each: torch.Tensor

    def weights(self, index):
        return self.each.view(-1)[index].float()


def training_volume(image, labels, weights, grid=None):
    return TrainingVolume(grid or own(image.shape), image, Given(labels.contiguous(), weights.contiguous()))


def scattered(shape, **voxels_of_class):
    """Labels, and which voxels weigh, with that many labelled voxels of each class, at random places."""
    rng = np.random.default_rng(0)
    labels, weighs = np.zeros(shape, np.uint8), np.zeros(shape, bool)
    places = rng.permutation(labels.size)
    for name, count in voxels_of_class.items():
        chosen, places = places[:count], places[count:]
        labels.reshape(-1)[chosen] = int(name[1:])
        weighs.reshape(-1)[chosen] = True
    return labels, weighs


def drawn_voxels(sampler, count, shape=(6, 6, 6)):
    rng = np.random.default_rng(1)
    return [tuple(round(c) for c in sampler.draw(rng, (1, 1, 1), own(shape))) for _ in range(count)]


# ---------------------------------------------------------------- centres


def test_each_class_is_drawn_equally_often_and_nothing_unlabelled():
    labels, weighs = scattered((12, 12, 12), c0=900, c1=90, c2=9)
    drawn = drawn_voxels(sampler_of(labels, weighs, 3), 3000, labels.shape)
    assert all(weighs[voxel] for voxel in drawn)
    shares = np.bincount([labels[voxel] for voxel in drawn]) / 3000
    np.testing.assert_allclose(shares, 1 / 3, atol=0.04)  # four and a half standard deviations
    assert len({voxel for voxel in drawn if labels[voxel] == 2}) == 9  # and every voxel of a class has its turn


def test_classes_without_labels_are_left_out():
    labels, weighs = scattered((6, 6, 6), c0=20, c3=20)
    labels[~weighs] = 2  # meaningless there
    drawn = drawn_voxels(sampler_of(labels, weighs, 5), 400)
    np.testing.assert_allclose(np.bincount([labels[voxel] for voxel in drawn], minlength=5) / 400, [0.5, 0, 0, 0.5, 0], atol=0.1)


def test_strokes_have_their_share_of_the_centres():
    labels, weighs = scattered((6, 6, 6), c0=10)
    strokes = np.zeros(labels.shape, bool)
    strokes[tuple(np.argwhere(weighs)[0])] = True
    drawn = drawn_voxels(sampler_of(labels, weighs, 1, strokes, stroke_share=0.7), 3000)
    assert np.mean([strokes[voxel] for voxel in drawn]) == pytest.approx(0.7 + 0.3 / 10, abs=0.035)
    assert all(weighs[voxel] for voxel in drawn)
    assert all(strokes[voxel] for voxel in drawn_voxels(sampler_of(labels, weighs, 1, strokes, stroke_share=1), 50))


@given(st.tuples(*[st.integers(1, 12)] * 3), st.tuples(*[st.integers(1, 16)] * 3), st.integers(0, 999), st.data())
def test_a_patch_lies_in_the_volume_and_holds_the_drawn_voxel(shape, patch, seed, data):
    voxel = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    weighs = np.zeros(shape, bool)
    weighs[voxel] = True
    centre = sampler_of(np.zeros(shape, np.uint8), weighs, 1).draw(np.random.default_rng(seed), patch, own(shape))
    for c, p, n, v in zip(centre, patch, shape, voxel, strict=True):
        if p >= n:
            assert abs(c - (n - 1) / 2) <= 0.5
        else:
            assert (p - 1) / 2 - 0.5 <= c <= n - 1 - (p - 1) / 2 + 0.5
        assert abs(v - c) <= p / 2
        assert (v - c + (p - 1) / 2) % 1 == 0  # the drawn voxel is a point of the patch's lattice


def test_a_seed_reproduces_the_centres():
    sampler = sampler_of(*scattered((8, 8, 8), c0=50, c1=50), 2)
    draws = [
        [sampler.draw(rng, (4, 4, 4), own((8, 8, 8))) for _ in range(20)]
        for rng in (np.random.default_rng(5), np.random.default_rng(5), np.random.default_rng(6))
    ]
    assert draws[0] == draws[1] != draws[2]


# ---------------------------------------------------------------- a coarser grid to work on


def test_places_on_a_coarser_grid_by_hand():
    grid = WorkingGrid((8, 9, 10), (4, 9, 5))
    assert grid.scale.tolist() == [2, 1, 2]
    assert grid.to_own(np.array([0.0, 4.0, 2.0])).tolist() == [0.5, 4, 4.5]  # between own voxels 0 and 1; 4; between 4 and 5
    assert grid.to_working(np.array([0.5, 4.0, 4.5])).tolist() == [0, 4, 2]
    assert grid.spacing((1.5, 2, 0.5)) == (3, 2, 1)


@given(st.tuples(*[st.integers(1, 300)] * 3), st.tuples(*[st.integers(1, 300)] * 3), st.tuples(*[st.floats(-9, 309)] * 3))
def test_places_on_another_grid_and_back(shape, working, place):
    grid = WorkingGrid(shape, working)
    np.testing.assert_allclose(grid.to_own(grid.to_working(np.array(place))), place, atol=1e-9)
    ends = np.array([[-0.5] * 3, np.array(working) - 0.5])  # both grids fill the same box
    np.testing.assert_allclose(grid.to_own(ends), [[-0.5] * 3, np.array(shape) - 0.5], atol=1e-9)


def test_centres_on_a_coarser_grid_lie_at_the_drawn_voxel():
    weighs = np.zeros((16, 16, 16), bool)
    weighs[9, 4, 13] = True
    centre = sampler_of(np.zeros((16, 16, 16), np.uint8), weighs, 1).draw(np.random.default_rng(0), (1, 1, 1), WorkingGrid((16,) * 3, (8, 16, 4)))
    np.testing.assert_allclose(centre, (9.5 / 2 - 0.5, 4, 13.5 / 4 - 0.5), atol=0.25)


def test_labels_are_looked_up_on_their_own_grid():
    values = torch.arange(12).view(1, 1, 12)
    volume = training_volume(values[..., 1::3].half(), values.to(torch.uint8), (values + 1).half(), WorkingGrid((1, 1, 12), (1, 1, 4)))
    image, labels, weights = take_patch(volume, plain((0, 0, 1.5)), offsets((1, 1, 4), CPU))
    assert labels.tolist() == [[[1, 4, 7, 10]]]  # three own voxels make one; the middle one's label
    assert weights.tolist() == [[[2, 5, 8, 11]]]
    torch.testing.assert_close(image[0], labels.float(), atol=0.01, rtol=0)
    torch.testing.assert_close(image[3], torch.tensor([[[-1, -1 / 3, 1 / 3, 1]]]), atol=1e-6, rtol=0)
    _, labels, weights = take_patch(volume, plain((0, 0, 0.5)), offsets((1, 1, 6), CPU))  # working places -2 .. 3
    assert weights.tolist() == [[[0, 0, 2, 5, 8, 11]]]


# ---------------------------------------------------------------- tiles


@given(st.integers(1, 70), st.integers(1, 40), st.data())
def test_tiles_decide_each_voxel_once_and_with_a_margin(size, tile, data):
    overlap = data.draw(st.integers(0, tile - 1))
    cores = tile_cores(size, tile, overlap)
    assert [n for _, first, last in cores for n in range(first, last)] == list(range(size))
    for start, first, last in cores:
        assert 0 <= start <= first < last <= start + tile
        assert start + tile <= max(size, tile)
        assert first == 0 or first - start >= overlap // 2
        assert last == size or start + tile - last >= overlap // 2


@given(st.integers(1, 70), st.integers(1, 40), st.data())
def test_neighbouring_tiles_overlap_by_at_least_what_was_asked(size, tile, data):
    overlap = data.draw(st.integers(0, tile - 1))
    starts = tile_starts(size, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, size - tile)
    assert all(a + tile - b >= overlap and b > a for a, b in itertools.pairwise(starts))


def test_tiles_by_hand():
    assert tile_starts(10, 4, 1) == [0, 3, 6]
    assert tile_cores(10, 4, 1) == [(0, 0, 3), (3, 3, 6), (6, 6, 10)]
    assert tile_cores(9, 4, 2) == [(0, 0, 3), (2, 3, 4), (3, 4, 6), (5, 6, 9)]  # starts 0, 1.67, 3.33, 5
    assert tile_cores(3, 8, 2) == [(0, 0, 3)]


def test_copies_on_the_device_do_not_share_memory():
    array = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    array.flags.writeable = False
    copied = to_device(array, CPU, torch.float16)
    copied += 1
    assert copied.dtype == torch.float16
    assert (array.ravel() == range(8)).all()


# ---------------------------------------------------------------- one patch


def volume_of(shape, seed=0):
    rng = np.random.default_rng(seed)
    image = torch.tensor(rng.normal(size=shape), dtype=torch.float16)
    labels = torch.tensor(rng.integers(0, 5, shape), dtype=torch.uint8)
    return training_volume(image, labels, torch.tensor(rng.random(shape), dtype=torch.float16))


@pytest.mark.parametrize("patch", [(3, 5, 7), (4, 2, 6), (1, 1, 1), (10, 11, 12)])
def test_without_augmentation_a_patch_is_a_slice_of_the_volume(patch):
    volume = volume_of((10, 11, 12))
    first = tuple((n - p) // 2 for n, p in zip((10, 11, 12), patch, strict=True))
    image, labels, weights = take_patch(volume, plain(tuple(f + (p - 1) / 2 for f, p in zip(first, patch, strict=True))), offsets(patch, CPU))
    box = tuple(slice(f, f + p) for f, p in zip(first, patch, strict=True))
    torch.testing.assert_close(image[0], volume.image[box].float(), atol=1e-4, rtol=1e-4)
    assert torch.equal(labels, volume.targets.labels[box].long())
    assert torch.equal(weights, volume.targets.each[box].float())
    assert image.dtype == weights.dtype == torch.float32


def test_beyond_the_volume_weights_are_zero_and_the_border_is_repeated():
    volume = volume_of((3, 4, 5))
    image, labels, weights = take_patch(volume, plain((1, 1.5, 2)), offsets((7, 8, 9), CPU))  # two voxels more on every side
    expected = F.pad(volume.targets.each.float(), (2, 2, 2, 2, 2, 2))
    assert torch.equal(weights, expected)
    assert torch.equal(labels[2:5, 2:6, 2:7], volume.targets.labels.long())
    torch.testing.assert_close(image[:1], F.pad(volume.image.float()[None], (2, 2, 2, 2, 2, 2), mode="replicate"), atol=1e-4, rtol=1e-4)


def test_a_quarter_turn_by_hand():
    values = torch.arange(9).view(1, 3, 3)
    volume = training_volume(values.half(), values.to(torch.uint8), torch.ones(1, 3, 3).half())
    matrix = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # patch (j, i) looks at volume (-i, j)
    image, labels, _ = take_patch(volume, dataclasses.replace(PLAIN, centre_kji=(0, 1, 1), matrix=matrix), offsets((1, 3, 3), CPU))
    assert labels.tolist() == [[[6, 3, 0], [7, 4, 1], [8, 5, 2]]]
    torch.testing.assert_close(image[0], labels.float(), atol=1e-3, rtol=1e-3)


def augmented(seed, strength=2.0, spacing=(2.0, 1.0, 1.0), centre=(9.3, 12.1, 14.6), mirror=False):
    return Augmenter(spacing, strength, mirror).draw(np.random.default_rng(seed), centre)


def moved_only(draw):
    return dataclasses.replace(draw, gain=1, shift=0, noise=0, blur=0)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("mirror", [False, True])
def test_labels_weights_and_image_move_together(axis, mirror):
    shape = (20, 26, 30)
    index = torch.arange(shape[axis]).view([-1 if a == axis else 1 for a in range(3)]).expand(shape).contiguous()
    volume = training_volume(index.half(), index.to(torch.uint8), (index + 1).half())  # each voxel says where it is along one axis
    compared = 0
    for seed in range(12):
        image, labels, weights = take_patch(volume, moved_only(augmented(seed, mirror=mirror)), offsets((12, 16, 16), CPU))
        clear = ((image[0] - image[0].floor() - 0.5).abs() > 0.01) & (weights > 0)  # between two voxels either may be the nearest
        assert torch.equal(labels[clear], image[0][clear].round().long())
        assert torch.equal(weights[clear], labels[clear] + 1.0)
        compared += int(clear.sum())
    assert compared > 12 * 12 * 16 * 16 * 0.6


def test_position_tells_where_each_voxel_of_the_patch_lies():
    shape = (20, 26, 30)
    index = torch.stack(torch.meshgrid(*[torch.arange(n) for n in shape], indexing="ij"))
    for axis in range(3):
        volume = training_volume(index[axis].half(), torch.zeros(shape, dtype=torch.uint8), torch.ones(shape).half())
        for seed in range(6):
            draw = dataclasses.replace(moved_only(augmented(seed)), with_position=True)
            image, _, weights = take_patch(volume, draw, offsets((6, 8, 8), CPU))
            places = (image[1 + axis] + 1) * (shape[axis] - 1) / 2
            torch.testing.assert_close(places[weights > 0].clamp(0, shape[axis] - 1), image[0][weights > 0], atol=0.01, rtol=0)


def test_position_by_hand():
    places = torch.tensor([0.0, 2.0, 4.0, 5.0]).expand(3, 1, 1, 4)
    result = position(places, (5, 3, 1))
    assert result[:, 0, 0].tolist() == [[-1, 0, 1, 1.5], [-1, 1, 3, 4], [-1, 3, 7, 9]]
    assert (position(places, (5, 3, 1), known=False) == 0).all()


def test_the_network_sometimes_gets_no_position():
    drawn = [augmented(seed) for seed in range(400)]
    assert np.mean([d.with_position for d in drawn]) == pytest.approx(0.75, abs=0.08)
    hidden = next(d for d in drawn if not d.with_position)
    image, _, _ = take_patch(volume_of((20, 26, 30)), hidden, offsets((4, 4, 4), CPU))
    assert (image[1:] == 0).all()
    assert image[0].abs().sum() > 0


def test_no_place_that_a_patch_needs_is_left_out():
    volume, patch = volume_of((9, 14, 16)), (6, 8, 10)
    rng = np.random.default_rng(0)
    elastic = 0
    for seed in range(150):
        centre = tuple(rng.uniform(-2, n + 1) for n in volume.image.shape)
        draw = moved_only(augmented(seed, strength=3.0, spacing=(3.0, 1.0, 1.0), centre=centre, mirror=True))
        elastic += draw.elastic is not None
        places = _places(draw, offsets(patch, CPU))
        whole = torch.stack([places[a] * 2 / (volume.image.shape[a] - 1) - 1 for a in (2, 1, 0)], dim=-1)
        expected = F.grid_sample(volume.image.float()[None, None], whole[None], padding_mode="border", align_corners=True)[0, 0]
        torch.testing.assert_close(take_patch(volume, draw, offsets(patch, CPU))[0][0], expected, atol=2e-3, rtol=0)
    assert elastic > 20


def test_only_the_neighbourhood_of_a_patch_is_read():
    low, high = _reach(plain((50, 50, 50)), (11, 11, 11), (100, 100, 100))
    assert low == [44, 44, 44]
    assert high == [57, 57, 57]


# ---------------------------------------------------------------- random numbers


def test_the_same_draw_gives_the_same_patch():
    volume, at = volume_of((20, 26, 30)), offsets((6, 8, 8), CPU)
    noisy = 0
    for seed in range(40):
        draw = augmented(seed)
        first, second = take_patch(volume, draw, at), take_patch(volume, draw, at)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        if draw.noise:
            noisy += 1
            assert not torch.equal(first[0], take_patch(volume, dataclasses.replace(draw, noise_seed=draw.noise_seed + 1), at)[0])
    assert noisy


def test_a_seed_reproduces_the_draw():
    for seed in range(20):
        first, second = augmented(seed), augmented(seed)
        assert first.matrix.tolist() == second.matrix.tolist()
        assert (first.elastic is None) == (second.elastic is None)
        assert dataclasses.replace(first, matrix=None, elastic=None) == dataclasses.replace(second, matrix=None, elastic=None)


def test_nothing_is_mirrored_unless_asked():
    assert all(np.linalg.det(augmented(seed).matrix) > 0 for seed in range(300))
    signs = {tuple(np.sign(np.diag(augmented(seed, strength=0.3, mirror=True).matrix))) for seed in range(300)}
    assert signs == set(itertools.product((-1, 1), repeat=3))


def test_strength_zero_changes_nothing_but_hides_the_position_at_times():
    for seed in range(50):
        draw = augmented(seed, strength=0)
        assert (draw.matrix == np.eye(3)).all()
        assert draw.elastic is None
        assert (draw.gain, draw.shift, draw.noise, draw.blur) == (1, 0, 0, 0)


def test_rotation_is_a_rotation_in_millimetres():
    spacing = np.array([5.0, 0.8, 1.0])
    turned = 0
    for seed in range(60):
        in_mm = augmented(seed, spacing=spacing).matrix * spacing[:, None] / spacing[None, :]
        product = in_mm.T @ in_mm  # columns of a rotation, each with a scale of its own
        np.testing.assert_allclose(product - np.diag(np.diag(product)), 0, atol=1e-9)
        assert 0.4 < np.sqrt(np.diag(product)).min() <= np.sqrt(np.diag(product)).max() < 2.5
        turned += abs(in_mm[1, 2]) > 0.05
    assert turned > 10


def test_thick_slices_are_turned_into_the_plane_less():
    def out_of_plane(spacing):
        return np.mean([abs(augmented(seed, spacing=spacing).matrix[0, 1] * spacing[0] / spacing[1]) for seed in range(300)])

    assert out_of_plane((5, 1, 1)) == pytest.approx(out_of_plane((1, 1, 1)) / 5, rel=0.15)


def test_elastic_displacement_is_the_same_along_each_axis_in_millimetres():
    fields = [d.elastic for seed in range(200) if (d := augmented(seed, strength=1.0, spacing=(4.0, 1.0, 0.5))).elastic is not None]
    in_mm = np.std(fields, axis=(0, 2, 3, 4)) * (4.0, 1.0, 0.5)
    np.testing.assert_allclose(in_mm, 1.5 * 0.5, rtol=0.05)


# ---------------------------------------------------------------- gray values


def test_gain_and_shift_by_hand():
    volume = volume_of((5, 5, 5))
    before = take_patch(volume, plain((2, 2, 2)), offsets((5, 5, 5), CPU))
    after = take_patch(volume, dataclasses.replace(plain((2, 2, 2)), gain=2, shift=-0.5), offsets((5, 5, 5), CPU))
    torch.testing.assert_close(after[0][0], 2 * before[0][0] - 0.5)
    assert torch.equal(after[0][1:], before[0][1:])
    assert torch.equal(after[1], before[1])
    assert torch.equal(after[2], before[2])


def test_blur_by_hand():
    image = torch.zeros((5, 5, 5), dtype=torch.float16)
    image[2, 2, 2] = 1
    volume = training_volume(image, torch.zeros((5, 5, 5), dtype=torch.uint8), torch.ones((5, 5, 5)).half())
    result = take_patch(volume, dataclasses.replace(plain((2, 2, 2)), blur=0.7), offsets((5, 5, 5), CPU))[0][0]
    side = math.exp(-1 / (2 * 0.49))
    taps = np.array([0, side, 1, side, 0]) / (1 + 2 * side)
    np.testing.assert_allclose(result, taps[:, None, None] * taps[:, None] * taps, atol=1e-5)


def test_blur_keeps_a_flat_image_flat_up_to_the_border():
    flat = training_volume(torch.full((4, 4, 4), 3.0).half(), torch.zeros((4, 4, 4), dtype=torch.uint8), torch.ones((4, 4, 4)).half())
    result = take_patch(flat, dataclasses.replace(plain((1.5, 1.5, 1.5)), blur=0.9), offsets((4, 4, 4), CPU))[0][0]
    torch.testing.assert_close(result, torch.full((4, 4, 4), 3.0))


def test_noise_has_the_drawn_size_and_spares_labels_and_position():
    volume = volume_of((20, 20, 20))
    before, after = (take_patch(volume, dataclasses.replace(plain((9.5, 9.5, 9.5)), noise=n), offsets((20, 20, 20), CPU)) for n in (0, 0.2))
    assert (after[0][0] - before[0][0]).std().item() == pytest.approx(0.2, rel=0.05)
    assert torch.equal(after[0][1:], before[0][1:])
    assert torch.equal(after[1], before[1])


@pytest.mark.parametrize("index", [4, 5])
def test_a_patch_on_a_coarser_grid_sees_the_slice_that_it_was_drawn_for(index):
    w = torch.zeros(12, 12, 12).half()
    w[index] = 1
    grid = WorkingGrid((12,) * 3, (6,) * 3)
    v = training_volume(torch.zeros(6, 6, 6).half(), torch.zeros(12, 12, 12, dtype=torch.uint8), w, grid)
    sampler, a, rng = sampler_of(np.zeros((12,) * 3, np.uint8), w.numpy() > 0, 1), Augmenter((1, 1, 1)), np.random.default_rng(0)
    empty = sum(
        take_patch(v, a.draw(rng, sampler.draw(rng, (6, 6, 6), grid)), offsets((6, 6, 6), torch.device("cpu")))[2].sum().item() == 0
        for _ in range(200)
    )
    assert empty < 10
