"""What a slab holds: slices and their neighbours, labels that never leave their slice, and draws that move image, labels and weights together."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sparseseg.network.augmentation import Augmenter, Draw, TrainingVolume, network_input, offsets, plane_input, take_slab
from sparseseg.network.sampling import WorkingGrid
from sparseseg.network.unet import CONTEXT, IN_CHANNELS

CPU = torch.device("cpu")
PLAIN = Draw(0, 0, np.eye(2), np.zeros(2), None, gain=(1,), offset=(0,), noise=(0,), noise_seed=0, with_position=True)
SHAPE = (7, 10, 12)
MIDDLE, PLACES, ACROSS = CONTEXT, slice(2 * CONTEXT + 1, 2 * CONTEXT + 4), slice(2 * CONTEXT + 4, 2 * CONTEXT + 7)  # channels


@dataclasses.dataclass
class Given:
    """What take_slab asks of network.targets.Targets, with a weight of its own for every voxel."""

    labels: torch.Tensor
    each: torch.Tensor

    def at(self, index):
        return self.labels.view(-1)[index].long(), self.each.view(-1)[index].float()


def tensor(values, dtype):
    return torch.as_tensor(np.ascontiguousarray(values)).to(dtype)


def training_volume(image, labels, weights=None, grid=None):
    labels = tensor(labels, torch.uint8)
    weights = torch.ones(labels.shape) if weights is None else tensor(weights, torch.float32)
    return TrainingVolume(grid or WorkingGrid.of_whole(tuple(labels.shape), tuple(image.shape)), tensor(image, torch.float16), Given(labels, weights))


def volume_of(shape=SHAPE, seed=0):
    rng = np.random.default_rng(seed)
    return training_volume(rng.normal(size=shape), rng.integers(0, 5, shape), rng.uniform(0.1, 1, shape))


def plain(axis, index, **changes):
    return dataclasses.replace(PLAIN, axis=axis, index=index, **changes)


def across(array, axis):
    """A view with the slices of an axis first."""
    return torch.as_tensor(array).movedim(axis, 0)


# ---------------------------------------------------------------- slices as they are


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("slices", [1, 2, 3])
def test_without_augmentation_a_slab_is_slices_of_the_volume(axis, slices):
    volume, index = volume_of(), 4
    image, labels, weights = take_slab(volume, plain(axis, index), slices)
    first = index - slices // 2
    part = slice(first, first + slices)
    assert image.shape == (IN_CHANNELS, slices, *[n for a, n in enumerate(SHAPE) if a != axis])
    torch.testing.assert_close(image[MIDDLE], across(volume.image, axis)[part].float(), atol=1e-3, rtol=1e-3)
    assert torch.equal(labels, across(volume.targets.labels, axis)[part].long())
    assert torch.equal(weights, across(volume.targets.each, axis)[part])
    assert (image.dtype, labels.dtype, weights.dtype) == (torch.float32, torch.int64, torch.float32)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_sees_its_neighbours_as_channels(axis):
    values = torch.arange(SHAPE[axis]).view([-1 if a == axis else 1 for a in range(3)]).expand(SHAPE)
    volume = training_volume(values, np.zeros(SHAPE))
    last = SHAPE[axis] - 1
    for index, seen in ((4, [2, 3, 4, 5, 6]), (0, [0, 0, 0, 1, 2]), (last, [last - 2, last - 1, last, last, last])):
        image = take_slab(volume, plain(axis, index), 1)[0].round(decimals=3)
        assert [channel.unique().tolist() for channel in image[: 2 * CONTEXT + 1, 0]] == [[value] for value in seen]
    image = take_slab(volume, plain(axis, 3), 3)[0].round(decimals=3)
    assert [[s.unique().item() for s in channel] for channel in image[: 2 * CONTEXT + 1]] == [[n, n + 1, n + 2] for n in range(5)]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("slices", [1, 4])
@pytest.mark.parametrize("index", [0, 3, 6])
def test_prediction_sees_what_training_sees_without_augmentation(axis, slices, index):
    volume = volume_of()
    for with_position in (True, False):
        learned = take_slab(volume, plain(axis, index, with_position=with_position), slices)[0]
        asked = plane_input(volume.image, axis, index - slices // 2, slices, with_position)
        torch.testing.assert_close(learned, asked, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_beyond_the_volume_weights_are_zero(axis):
    volume, n = volume_of(), SHAPE[axis]
    image, labels, weights = take_slab(volume, plain(axis, 0), 5)
    assert not weights[:2].any() and weights[2:].all()
    assert torch.equal(labels[2:], across(volume.targets.labels, axis)[:3].long())
    torch.testing.assert_close(image[MIDDLE, :2], across(volume.image, axis)[[0, 0]].float(), atol=1e-3, rtol=1e-3)
    weights = take_slab(volume, plain(axis, n - 1), 8)[2]
    assert weights[:5].all() and not weights[5:].any()


# ---------------------------------------------------------------- position and orientation


def test_position_and_orientation_by_hand():
    seen = torch.zeros(2 + 2 * CONTEXT, 3, 2)
    places = torch.stack(torch.meshgrid(torch.tensor([0.0, 1, 2]), torch.tensor([0.0, 3]), indexing="ij"))
    result = network_input(seen, 1, 1, (3, 5, 4), places, with_position=True)
    k, j, i = result[PLACES]
    assert k[0].tolist() == [[-1, -1], [0, 0], [1, 1]]  # rows lie along k
    assert i[1].tolist() == [[-1, 1]] * 3
    assert [plane.unique().tolist() for plane in j] == [[-0.5], [0]]  # slices 1 and 2 of 0 .. 4
    assert [channel.unique().tolist() for channel in result[ACROSS]] == [[0], [1], [0]]
    hidden = network_input(seen, 1, 1, (3, 5, 4), places, with_position=False)
    assert not hidden[PLACES].any()
    assert torch.equal(hidden[ACROSS], result[ACROSS])


def test_position_in_a_volume_of_one_slice_stays_finite():
    result = plane_input(torch.zeros(1, 4, 4, dtype=torch.float16), 0, 0, 1)
    assert result.isfinite().all()
    assert result[PLACES][0].unique().tolist() == [-1]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_position_tells_where_each_voxel_of_an_augmented_slab_lies(axis):
    compared = 0
    for a, seed in itertools.product(range(3), range(4)):
        index = torch.arange(SHAPE[a]).view([-1 if b == a else 1 for b in range(3)]).expand(SHAPE)
        draw = dataclasses.replace(moved_only(augmented(seed, axis)), with_position=True)
        image, _, weights = take_slab(training_volume(index, np.zeros(SHAPE)), draw, 3)
        inside = weights > 0
        places = (image[PLACES][a] + 1) * (SHAPE[a] - 1) / 2
        torch.testing.assert_close(places[inside].clamp(0, SHAPE[a] - 1), image[MIDDLE][inside], atol=0.01, rtol=0)
        compared += int(inside.sum())
    assert compared > 1000


# ---------------------------------------------------------------- labels on their own grid


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("index", [4, 5, 6])
def test_labels_do_not_leave_their_slice_on_a_coarser_grid(axis, index):
    """Three own slices make a working one; each of them is learned from by itself, and seen as their mean."""
    each = np.moveaxis(np.broadcast_to(np.arange(12)[:, None, None], (12, 12, 12)), 0, axis)
    marks = np.where(each == index, 9, 0)
    volume = training_volume(torch.zeros(4, 4, 4), marks, each == index)
    for slices in (1, 2, 3):
        _, labels, weights = take_slab(volume, plain(axis, index), slices)
        assert [plane.unique().tolist() for plane in labels] == [[9] if n == slices // 2 else [0] for n in range(slices)]
        assert [plane.unique().tolist() for plane in weights] == [[1] if n == slices // 2 else [0] for n in range(slices)]


def test_the_other_slices_of_a_slab_are_the_own_ones_in_the_middle_of_theirs():
    each = np.broadcast_to(np.arange(12)[:, None, None], (12, 4, 4))
    for index in (3, 4, 5):  # all of the second working slice
        labels = take_slab(training_volume(torch.zeros(4, 4, 4), each), plain(0, index), 3)[1]
        assert [plane.unique().item() for plane in labels] == [1, index, 7]


def test_labels_are_looked_up_on_their_own_grid():
    values = torch.arange(12).view(1, 1, 12)
    volume = training_volume(values[..., 1::3], values, values + 1)
    image, labels, weights = take_slab(volume, plain(0, 0), 1)
    assert labels.tolist() == [[[1, 4, 7, 10]]]  # three own voxels make one; the middle one's label
    assert weights.tolist() == [[[2, 5, 8, 11]]]
    torch.testing.assert_close(image[MIDDLE], labels.float(), atol=0.01, rtol=0)
    shifted = take_slab(volume, plain(0, 0, shift=np.array([0, -2.0])), 1)
    assert shifted[2].tolist() == [[[0, 0, 2, 5]]]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_in_a_box_labels_are_those_of_the_volume_there_and_weights_zero_beyond(axis):
    shape, box = (9, 10, 11), (slice(2, 8), slice(1, 9), slice(3, 7))
    numbers = np.arange(990).reshape(shape) % 251
    volume = training_volume(numbers[box], numbers, numbers + 1, WorkingGrid(shape, box, (6, 8, 4)))
    index = box[axis].start + 1
    image, labels, weights = take_slab(volume, plain(axis, index), 1)
    expected = across(numbers[box], axis)[1]
    assert torch.equal(labels[0], expected)
    assert torch.equal(weights[0], expected + 1.0)
    torch.testing.assert_close(image[MIDDLE, 0], expected.float(), atol=0.05, rtol=0)
    for shift, kept in (([2, 0], (slice(None, -2), slice(None))), ([0, -1], (slice(None), slice(1, None)))):
        _, labels, weights = take_slab(volume, plain(axis, index, shift=np.array(shift, float)), 1)
        moved = np.zeros(expected.shape)
        rows, columns = moved[kept].shape
        moved[kept] = (expected + 1.0)[shift[0] : shift[0] + rows, :columns]
        assert weights[0].tolist() == moved.tolist()  # though the volume goes on there
    _, _, weights = take_slab(volume, plain(axis, box[axis].start), 3)
    assert not weights[0].any() and weights[1:].all()


# ---------------------------------------------------------------- moved slabs


def test_a_quarter_turn_by_hand():
    values = torch.arange(9).view(1, 3, 3)
    matrix = np.array([[0.0, -1], [1, 0]])  # (row, column) looks at (-column, row)
    image, labels, _ = take_slab(training_volume(values, values), plain(0, 0, matrix=matrix), 1)
    assert labels.tolist() == [[[6, 3, 0], [7, 4, 1], [8, 5, 2]]]
    torch.testing.assert_close(image[MIDDLE], labels.float(), atol=1e-3, rtol=1e-3)


def test_mirroring_by_hand():
    values = torch.arange(12).view(3, 1, 4)
    matrix = np.diag([1.0, -1.0])
    image, labels, _ = take_slab(training_volume(values, values), plain(1, 0, matrix=matrix), 1)
    assert labels.tolist() == [[[3, 2, 1, 0], [7, 6, 5, 4], [11, 10, 9, 8]]]
    assert image[PLACES][2, 0, 0].tolist() == pytest.approx([1, 1 / 3, -1 / 3, -1])


def test_an_even_displacement_is_a_shift():
    values = torch.arange(20).view(1, 4, 5)
    elastic = np.stack([np.full((6, 6), 1.0), np.full((6, 6), -2.0)])
    _, labels, weights = take_slab(training_volume(values, values), plain(0, 0, elastic=elastic), 1)
    assert weights.tolist() == [[[0, 0, 1, 1, 1]] * 3 + [[0] * 5]]
    assert labels[0, :3, 2:].tolist() == [[5, 6, 7], [10, 11, 12], [15, 16, 17]]


def augmented(seed, axis=0, index=3, strength=2.0, spacing=(2.0, 1.0, 1.0), shape=SHAPE, mirror=False):
    return Augmenter(WorkingGrid.of_whole(shape, shape), spacing, strength, mirror).draw(np.random.default_rng(seed), axis, index)


def moved_only(draw):
    return dataclasses.replace(draw, gain=(1,), offset=(0,), noise=(0,))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("mirror", [False, True])
def test_labels_weights_and_image_move_together(axis, mirror):
    shape, compared = (20, 26, 30), 0
    for a, seed in itertools.product(range(3), range(4)):
        index = torch.arange(shape[a]).view([-1 if b == a else 1 for b in range(3)]).expand(shape)
        volume = training_volume(index, index, index + 1)  # each voxel says where it is along one axis
        draw = moved_only(augmented(seed, axis, 11, shape=shape, mirror=mirror))
        image, labels, weights = take_slab(volume, draw, 3)
        seen = image[MIDDLE]
        clear = ((seen - seen.floor() - 0.5).abs() > 0.01) & (weights > 0)  # between two voxels either may be the nearest
        assert torch.equal(labels[clear], seen[clear].round().long())
        assert torch.equal(weights[clear], labels[clear] + 1.0)
        compared += int(clear.sum()) / seen.numel()
    assert compared > 12 * 0.5


def test_the_image_is_interpolated_where_the_draw_says():
    """Against the whole places, put together from offsets, matrix, displacement, centre and shift."""
    volume = volume_of((5, 14, 16))
    for seed in range(10):
        draw = moved_only(augmented(seed, shape=(5, 14, 16), mirror=True))
        assert draw.elastic is not None
        at = torch.tensor(draw.matrix).float() @ offsets((14, 16), CPU).reshape(2, -1)
        bent = F.interpolate(torch.tensor(draw.elastic).float()[None], size=(14, 16), mode="bicubic", align_corners=False)[0]
        places = at.view(2, 14, 16) + bent + torch.tensor([6.5, 7.5]).view(2, 1, 1) + torch.tensor(draw.shift).float().view(2, 1, 1)
        image = take_slab(volume, draw, 1)[0][MIDDLE, 0]
        rows, columns = (places[n].clamp(0, side - 1) for n, side in enumerate((14, 16)))
        low_row, low_column = rows.floor().long().clamp(max=12), columns.floor().long().clamp(max=14)
        down, right = rows - low_row, columns - low_column
        plane = volume.image[3].float()
        above = plane[low_row, low_column] * (1 - right) + plane[low_row, low_column + 1] * right
        below = plane[low_row + 1, low_column] * (1 - right) + plane[low_row + 1, low_column + 1] * right
        torch.testing.assert_close(image, above * (1 - down) + below * down, atol=1e-3, rtol=1e-3)


# ---------------------------------------------------------------- random numbers


def test_the_same_draw_gives_the_same_slab():
    volume = volume_of()
    for seed in range(20):
        draw = augmented(seed)
        first, second = take_slab(volume, draw, 3), take_slab(volume, draw, 3)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        assert not torch.equal(first[0], take_slab(volume, dataclasses.replace(draw, noise_seed=draw.noise_seed + 1), 3)[0])


def numbers(draw):
    return [value.tolist() if isinstance(value, np.ndarray) else value for value in vars(draw).values()]


def test_a_seed_reproduces_the_draw():
    for seed in range(10):
        assert numbers(augmented(seed)) == numbers(augmented(seed)) != numbers(augmented(seed + 1))


def test_a_draw_is_of_the_slice_that_was_asked_for():
    draw = augmented(0, axis=2, index=9)
    assert (draw.axis, draw.index) == (2, 9)


def test_nothing_is_mirrored_unless_asked():
    assert all(np.linalg.det(augmented(seed).matrix) > 0 for seed in range(300))
    signs = {tuple(np.sign(np.diag(augmented(seed, strength=0.3, mirror=True).matrix))) for seed in range(100)}
    assert signs == set(itertools.product((-1, 1), repeat=2))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_strength_zero_changes_nothing(axis):
    for seed in range(20):
        assert numbers(dataclasses.replace(augmented(seed, axis, strength=0), noise_seed=0)) == numbers(plain(axis, 3))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rotation_and_scale_are_the_same_along_rows_and_columns_in_millimetres(axis):
    spacing = np.array([5.0, 0.8, 1.0])
    turned, sides = 0, np.delete(spacing, axis)
    for seed in range(60):
        in_mm = augmented(seed, axis, spacing=spacing).matrix * sides[:, None] / sides[None, :]
        product = in_mm.T @ in_mm
        np.testing.assert_allclose(product, product[0, 0] * np.eye(2), atol=1e-9)
        assert 0.4 < np.sqrt(product[0, 0]) < 2.5
        turned += abs(in_mm[0, 1]) > 0.02
    assert turned > 20


def test_the_working_grids_spacing_counts_not_the_volumes_own():
    """Twice as coarse along i: 1 mm and 2 mm, as of a volume that has them."""
    coarse = Augmenter(WorkingGrid.of_whole((8, 10, 20), (8, 10, 10)), (1, 1, 1)).draw(np.random.default_rng(0), 0, 3)
    other = Augmenter(WorkingGrid.of_whole((8, 10, 10), (8, 10, 10)), (1, 1, 2)).draw(np.random.default_rng(0), 0, 3)
    assert numbers(coarse) == numbers(other)
    assert coarse.matrix[0, 1] == pytest.approx(-4 * coarse.matrix[1, 0])


def test_planes_of_thick_slices_are_turned_less():
    def turned(spacing):
        return np.mean(
            [abs(m[0, 1] * spacing[2] ** -1 * spacing[1]) for m in (augmented(n, strength=0.5, spacing=spacing).matrix for n in range(300))]
        )

    assert turned((1, 5, 1)) == pytest.approx(turned((1, 1, 1)) / 5, rel=0.15)


def test_shift_and_displacement_have_their_share_of_the_plane():
    drawn = [augmented(seed, axis=0, strength=1, shape=(5, 50, 200)) for seed in range(400)]
    np.testing.assert_allclose(np.std([d.shift for d in drawn], axis=0), [0.04 * 50, 0.04 * 200], rtol=0.1)
    np.testing.assert_allclose(np.std([d.elastic for d in drawn], axis=(0, 2, 3)), 0.01 * 50, rtol=0.05)


def test_the_network_sometimes_gets_no_position():
    drawn = [augmented(seed) for seed in range(400)]
    assert np.mean([d.with_position for d in drawn]) == pytest.approx(0.7, abs=0.08)
    hidden = next(d for d in drawn if not d.with_position)
    image = take_slab(volume_of(), hidden, 1)[0]
    assert not image[PLACES].any()
    assert image[ACROSS].any() and image[MIDDLE].any()


# ---------------------------------------------------------------- gray values


def test_gain_and_offset_by_hand():
    volume = volume_of()
    before, after = (take_slab(volume, plain(1, 4, gain=(gain,), offset=(offset,)), 2) for gain, offset in ((1, 0), (2, -0.5)))
    seen = slice(0, 2 * CONTEXT + 1)
    torch.testing.assert_close(after[0][seen], 2 * before[0][seen] - 0.5)
    assert torch.equal(after[0][seen.stop :], before[0][seen.stop :])
    assert torch.equal(after[1], before[1]) and torch.equal(after[2], before[2])


def test_noise_has_the_drawn_size_spares_all_else_and_is_a_slices_own():
    volume = volume_of((9, 40, 40))
    before, after = (take_slab(volume, plain(0, 4, noise=(noise,)), 2) for noise in (0, 0.2))
    noise = (after[0] - before[0])[: 2 * CONTEXT + 1]
    assert noise[MIDDLE].std().item() == pytest.approx(0.2, rel=0.05)
    assert torch.equal(noise[MIDDLE, 1], noise[MIDDLE + 1, 0])  # the next slice, seen from both
    assert np.corrcoef(noise[MIDDLE, 0].flatten(), noise[MIDDLE, 1].flatten())[0, 1] == pytest.approx(0, abs=0.1)
    assert torch.equal(after[0][2 * CONTEXT + 1 :], before[0][2 * CONTEXT + 1 :])
    assert torch.equal(after[1], before[1]) and torch.equal(after[2], before[2])


def test_offsets_by_hand():
    assert offsets((2, 3), CPU).tolist() == [[[-0.5] * 3, [0.5] * 3], [[-1, 0, 1]] * 2]


def test_each_channel_is_seen_as_if_it_were_the_only_one():
    """In its own gray values; moved alike, and with noise of its own."""
    rng = np.random.default_rng(4)
    images = torch.from_numpy(rng.normal(size=(3, *SHAPE)).astype(np.float16))
    draw = plain(1, 4, shift=np.array([0.3, -1.2]), gain=(1, 2, 3), offset=(0, 1, -1), noise=(0, 0, 0))
    together = take_slab(dataclasses.replace(volume_of(), image=images), draw, 2)
    for c, image in enumerate(images):
        alone = take_slab(
            dataclasses.replace(volume_of(), image=image), dataclasses.replace(draw, gain=(draw.gain[c],), offset=(draw.offset[c],), noise=(0,)), 2
        )
        assert torch.equal(together[0][5 * c : 5 * c + 5], alone[0][:5]) and torch.equal(together[0][-6:], alone[0][-6:])
        assert torch.equal(together[1], alone[1])
    noisy = take_slab(dataclasses.replace(volume_of(), image=images), dataclasses.replace(draw, noise=(0, 0.1, 0)), 2)[0] - together[0]
    assert noisy[5:10].std() > 0.05 and (noisy[:5] == 0).all() and (noisy[10:] == 0).all()
