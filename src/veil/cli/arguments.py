"""What commands take: the types of their options, with help; how texts are read; the command, for who repeats it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from veil.methods.registry import METHODS

if TYPE_CHECKING:
    pass

# -- methods and presets, for the help of `fit` -----------------------------------------------------------------------


def methods_help() -> str:
    *names, last = METHODS
    return f"{', '.join(names)} or {last}."


def presets_help() -> str:
    """Of methods that have more than one preset."""
    several = [f"{m.name}: {', '.join(m.presets)}" for m in METHODS.values() if len(m.presets) > 1]
    return f"For {'; for '.join(several)}."


def frontier_help() -> str:
    due = [
        f"{m.name}'s {' and '.join(p for p in m.presets if p in m.frontier)}" for m in METHODS.values() if m.frontier
    ]
    return f"Measure what each noise hides and keeps; by default for presets {', '.join(due)}."


# -- options ----------------------------------------------------------------------------------------------------------

# Of all commands, or several.
Quiet = Annotated[bool, Option("--quiet", "-q", help="No progress.")]
Json = Annotated[bool, Option("--json", help="Print the result as one JSON object, without progress.")]
Seed = Annotated[int, Option(min=0, max=2**31 - 1, help="Seeds everything random but secret keys.")]
Force = Annotated[bool, Option("--force", help="Replace what is there.")]
Jobs = Annotated[
    int | None, Option(min=1, help="How much to do at a time; as much as there are processors by default.")
]
PrivateLabels = Annotated[list[str] | None, Option("--private", help="Label to hide and attack; repeat for several.")]
PackFolder = Annotated[Path, Argument(metavar="PACK", help="What `veil pack` made.")]
ReleaseFolder = Annotated[Path, Argument(metavar="RELEASE", help="What `veil fit` made.")]

# demo
DemoFolder = Annotated[Path, Option(help="Folder for all of it; what an earlier demo left there is replaced.")]

# protect
ProtectedSource = Annotated[
    Path,
    Argument(
        metavar="SOURCE",
        help="Folder of photographs, pack, or Parquet (or a folder of it), npz, npy or CSV file of vectors.",
    ),
]
NewFolder = Annotated[
    Path, Argument(metavar="OUT", help="Folder to make: what may be handed out, the audit, and what must stay private.")
]
HiddenLabels = Annotated[list[str] | None, Option("--hide", help="Label to hide; repeat for several.")]
OneUse = Annotated[str, Option("--keep", help="identity (1-to-1 matching), or a label to keep.")]
ReleasedForm = Annotated[str, Option("--as", help="What comes out: vectors, or photos of photographs.")]
PeopleByFolder = Annotated[bool, Option("--by-folder", help="The folder that a photograph lies in says who is seen.")]
ForceProtect = Annotated[
    bool, Option("--force", help="Replace what an earlier one made, once the new release is fitted.")
]
ResumeProtect = Annotated[bool, Option("--resume", help="Go on with the same, which was killed.")]

# pack
Layout = Annotated[
    str,
    Argument(
        metavar="LAYOUT",
        help="stylised, folder, parquet, lfw, celeba, utkface, fairface, ferg, pendigits, embeddings, vggface2 or "
        "msceleb.",
    ),
]
DataSet = Annotated[str, Argument(metavar="SOURCE", help="Folder or file; for stylised, identities=1000,images=6.")]
NewPack = Annotated[Path, Argument(metavar="PACK", help="Folder to make.")]
Side = Annotated[int, Option(help="Side of the images in pixels.")]
SideOfFaces = Annotated[
    int | None, Option("--size", help="Side of aligned faces in pixels, where photographs are protected as images; 64.")
]
Channels = Annotated[int, Option(help="1 (grey) or 3 (RGB).")]
PackLabels = Annotated[Path | None, Option(help="CSV or Parquet file of labels, or another pack.")]
Crop = Annotated[
    str | None, Option(help="Left,top,right,bottom as fractions of the image; the layout's own by default.")
]
PackLandmarks = Annotated[
    Path | None,
    Option(help="CSV file that says where eyes are; faces are then aligned by them, in place of a crop."),
]
PackFaces = Annotated[
    bool,
    Option("--faces", help="Find the largest face of each image, and align it by its eyes; needs the extra faces."),
]
AllFaces = Annotated[
    bool, Option("--all-faces", help="A row for every face, NAME#1 for the largest of an image and so on.")
]
Fractions = Annotated[str, Option(help="Shares of the splits protect,attack,calibrate,test.")]
Disjoint = Annotated[
    bool, Option("--disjoint/--no-disjoint", help="Keep the splits' people apart; not where identity is private.")
]
DataSheet = Annotated[
    Path | None, Option("--about", help="TOML or JSON file that says source, licence, consent and the like.")
]
LayoutSettings = Annotated[list[str] | None, Option("--set", help="The layout's own setting, NAME=VALUE.")]

# fit
MethodName = Annotated[str, Argument(metavar="METHOD", help=methods_help())]
NewRelease = Annotated[Path, Argument(metavar="RELEASE", help="Folder to make.")]
KeptUse = Annotated[
    str,
    Option(
        help="identity (1-to-1 matching), or a label to keep; inversion takes more with --set labels=A,B. aia, "
        "substitution and inversion need a label where the pack does not say who is seen."
    ),
]
Preset = Annotated[str | None, Option(help=presets_help())]
MethodSettings = Annotated[list[str] | None, Option("--set", help="Change a setting of the preset, NAME=VALUE.")]
Budget = Annotated[
    list[str] | None,
    Option(
        help="NAME=LIMIT: choose the noise so that the worst attack's balanced accuracy on "
        "held-out people stays at or below the limit.",
    ),
]
Frontier = Annotated[
    bool | None,
    Option(help=frontier_help()),
]
Base = Annotated[Path | None, Option(help="Release that a baseline works on; the input itself if none.")]
FitKey = Annotated[
    Path | None,
    Option(help="Key file of 32 bytes for keyed noise; RELEASE.key if it is there, else a fresh one."),
]
Precision = Annotated[str, Option(help="auto, bf16 or fp32.")]
CheckpointEvery = Annotated[int | None, Option(min=1, help="Steps between checkpoints; one a minute by default.")]
ResumeFit = Annotated[bool, Option("--resume", help="Continue an interrupted fit of the same settings.")]
KeepDecoder = Annotated[bool, Option("--keep-decoder", help="Ship the decoder, which redraws inputs.")]

# apply
Rows = Annotated[
    Path,
    Argument(
        metavar="SOURCE",
        help="Folder of images, pack, file of vectors (Parquet, npz, npy, CSV) or images (Parquet), folder of Parquet.",
    ),
]
Target = Annotated[
    Path, Argument(metavar="OUT", help="NAME.parquet, NAME.npz, NAME.npy, or a folder for a pack or --images.")
]
Key = Annotated[Path | None, Option(help="Key file; RELEASE.key if none.")]
Column = Annotated[
    str | None,
    Option(help="Column or array of vectors, where the file has several; of v0, v1, ... it is v; or several, A,B,C."),
]
RekeyedRelease = Annotated[
    Path, Argument(metavar="NEW", help="Folder of the release under another key; made, with a fresh one, if need be.")
]
Stored = Annotated[Path | None, Option(help="Stored releases to move: a file that `veil apply` wrote, or a pack.")]
Moved = Annotated[Path | None, Option("--out", help="Where moved releases go, in a form that `veil apply` writes.")]
ToldLabels = Annotated[
    list[str] | None,
    Option(help="Private label whose class a column of that name, or the pack, tells, so that it is not guessed."),
]
RowNumbers = Annotated[
    bool,
    Option(
        "--row-numbers",
        help="Name rows, and image files, by number. Without it the source's names, of files too, go along in what is "
        "released and in lists, and may say who somebody is.",
    ),
]
ImageLandmarks = Annotated[
    Path | None,
    Option(help="CSV file that says where eyes are in a folder's images, if the release needs them aligned."),
]
ImageFaces = Annotated[
    bool,
    Option(
        "--faces",
        help="Find the faces of a folder's images, if the release needs them aligned: the largest of each, with "
        "--images all of them; extra faces.",
    ),
]
Hide = Annotated[
    Path | None, Option(help="CSV file that says what to hide in which images, if the release lets you choose.")
]
ImageFiles = Annotated[
    bool,
    Option(
        "--images",
        help="Write image files, in SOURCE's tree and formats, without metadata: with --faces whole photographs whose "
        "faces are released, else what is released alone. With OUT.parquet a table of images.",
    ),
]
BlurRest = Annotated[
    bool, Option("--blur-rest", help="Blur what may be a face in whole photographs, too (--images --faces).")
]
ShardRows = Annotated[
    int | None, Option(min=1, help="Make OUT.parquet a folder of Parquet files, each of so many rows.")
]
ResumeAudit = Annotated[
    bool,
    Option("--resume", help="Measure only what an audit there has not, which was killed, or of fewer releases."),
]
ResumeApply = Annotated[bool, Option("--resume", help="Continue a killed run of the same release and source.")]
Strict = Annotated[
    bool, Option("--strict", help="Exit with 2 if a row could not be read, or a photograph may hold a face as it was.")
]

# label
LabelledPack = Annotated[Path, Argument(metavar="PACK", help="A pack of images, into which the label is written.")]
LabelName = Annotated[str, Argument(metavar="NAME", help="What the label is called: gender, say.")]
LabelClassifier = Annotated[
    Path,
    Option(
        help="ONNX file of yours that takes images and gives a logit for each class, or one, of the second of two.",
    ),
]
ClassNames = Annotated[
    str | None,
    Option(help="The classes, A,B,C in the order of its logits; those in the file's metadata if none are named."),
]
MatcherSettings = Annotated[
    str | None,
    Option(
        "--matcher-settings",
        help="What the matcher's file sees, NAME=VALUE,...: size, colours, mean, std, eyes, or form=arcface or "
        "imagenet; for what the file does not say.",
    ),
]
ClassifierSettings = Annotated[
    str | None,
    Option(
        "--classifier-settings",
        help="What classifiers see, NAME=VALUE,...: size, colours, mean, std, eyes, or form=arcface or imagenet; for "
        "what their files do not say.",
    ),
]

# embed
# check
CheckedAudit = Annotated[Path, Argument(metavar="AUDIT", help="Folder with findings.json, from `veil audit`.")]
Requirements = Annotated[
    list[str] | None,
    Option(
        "--require",
        help="WHAT <= LIMIT or WHAT >= LIMIT, such as 'gender <= 0.60' or 'identity.auc >= 0.99'; repeat for several.",
    ),
]
RequirementFile = Annotated[
    Path | None, Option("--require-file", help="TOML file whose table check has require, a list of them.")
]
EarlierAudit = Annotated[
    Path | None,
    Option("--against", help="Folder of an earlier audit of the same data: what became worse beyond chance?"),
]
CheckedReleases = Annotated[
    list[str] | None, Option("--release", help="Release that is judged; all that were asked for by default.")
]

Photographs = Annotated[Path, Argument(metavar="SOURCE", help="Folder of photographs, or a pack of aligned faces.")]
Templates = Annotated[Path, Argument(metavar="OUT", help="NAME.parquet: source, vector, and labels.")]
Embedder = Annotated[
    str | None, Option("--matcher", help="dlib, which the extra faces brings (the default), or an ONNX file of yours.")
]
EmbedLabels = Annotated[
    Path | None,
    Option(
        "--labels", help="CSV or Parquet file of the photographs' labels, or a pack; labels.csv beside them if any."
    ),
]
FolderSettings = Annotated[
    list[str] | None,
    Option("--set", help="identity=folder: the name of a photograph's folder says who is seen."),
]
EmbedLandmarks = Annotated[
    Path | None, Option("--landmarks", help="CSV file that says where eyes are; else faces are found.")
]

# audit
AuditedData = Annotated[
    Path | None,
    Argument(metavar="PACK", help="What `veil pack` made, or a file of unprotected vectors with labels."),
]
AuditFolder = Annotated[
    Path | None,
    Argument(
        metavar="OUT",
        help="Folder for findings.json, pictures, curves, in place of an earlier audit's; audit by default.",
    ),
]
AuditFolderAlone = Annotated[Path | None, Option("--out", help="OUT, where no PACK stands before it.")]
MeasuredUses = Annotated[
    list[str] | None,
    Option(help="identity, or a label; repeat for several. By default identity, where the pack says who is seen."),
]
Releases = Annotated[list[str] | None, Option("--release", help="Release folder, or NAME=FOLDER; repeat for several.")]
Vectors = Annotated[
    list[str] | None,
    Option(
        "--vectors",
        help="Parquet (or a folder of it), npz, npy or CSV file of anybody's releases of the pack's rows, or "
        "NAME=FILE. Without a PACK "
        "the first one brings the labels.",
    ),
]
ScoreFiles = Annotated[
    list[str] | None,
    Option(
        "--scores",
        help="CSV or Parquet file of a system's scores, or NAME=FILE, in place of PACK: columns mated (1 or 0) and "
        "score, and person_a and person_b if known; repeat for several.",
    ),
]
WriteScores = Annotated[
    bool,
    Option("--write-scores", help="Also write OUT/scores: each release's scores of the pairs that verification takes."),
]
Keys = Annotated[
    list[str] | None,
    Option(help="NAME=FILE: the key of a release, where it is not RELEASE.key; repeat for several."),
]
VectorLabels = Annotated[
    Path | None, Option(help="CSV or Parquet file, or pack, with the labels of a file of vectors.")
]
Baselines = Annotated[
    list[str] | None,
    Option(help="Control on the unprotected input: leace (by default), random, or none; repeat for both."),
]
Effort = Annotated[str, Option(help="quick, standard or strong.")]
AttackOn = Annotated[
    str | None,
    Option(help="Splits that attackers train on: attack (by default of a pack), or protect,attack (of files)."),
]
Level = Annotated[float, Option(min=0.5, max=0.999, help="Coverage of the intervals.")]
Inversion = Annotated[bool, Option("--inversion", help="Also redraw the originals from releases with fresh decoders.")]
Pictures = Annotated[
    bool,
    Option(
        "--pictures",
        help="Let the page show some test images beside what is released of them; without it drawn faces alone.",
    ),
]
Auditor = Annotated[str, Option("--by", help="Who audits, for the page.")]
Matcher = Annotated[
    str | None,
    Option(
        help="dlib, which the extra faces brings, of aligned faces, or an ONNX face matcher of yours: it judges "
        "redrawn faces in place of one trained on the attackers' splits, and compares releases that are images, beside "
        "one."
    ),
]
Classifiers = Annotated[
    list[str] | None,
    Option(
        help="LABEL=FILE.onnx: a classifier of a private label that releases that are images are shown to; it "
        "gives a logit for each of the label's classes, in their order in pack.json; repeat for several."
    ),
]
Perceptual = Annotated[Path | None, Option(help="File of torchvision's VGG-16 weights, for perceptual distances.")]
Names = Annotated[
    bool,
    Option(
        "--names",
        help="Leave names of rows and files, and paths, in the notes and the command that findings.json and the "
        "report hold; without it they hold none, but what releases and ONNX files are called.",
    ),
]

# report, export
ReportFolder = Annotated[Path, Argument(metavar="OUT", help="Folder with findings.json; its report.html is replaced.")]
OtherAudit = Annotated[
    Path | None, Argument(metavar="[OTHER]", help="Folder of another audit, to be set beside the first.")
]
ComparedPage = Annotated[
    Path | None, Option("--out", help="File for the page of two audits; compared.html beside the other's findings.")
]
Card = Annotated[bool, Option("--card", help="Also write card.md, a model card of each release that was asked for.")]
BundleFolder = Annotated[Path, Argument(metavar="OUT", help="Folder to make.")]
