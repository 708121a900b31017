"""Labels, details and similar photos, next to the photo or below it."""

from typing import Any

from kivy.factory import Factory
from kivy.properties import BooleanProperty, ObjectProperty, StringProperty
from kivy.uix.boxlayout import BoxLayout
from kivy.uix.widget import Widget

from app.library.gallery import PhotoTag
from app.ui.grid.tile import Tile
from app.ui.host import Host
from app.ui.kit.strings import t
from app.ui.kit.widgets import WrappedLabel
from app.ui.screens.photo.model import Part, PhotoModel, describe
from app.ui.screens.photo.verbs import PhotoVerbs


class TagRow(Widget):
    """A label of the photo: where it comes from, and buttons to correct it."""

    label = StringProperty("")
    note = StringProperty("")
    yours = BooleanProperty(False)
    decided = BooleanProperty(False)
    rejected = BooleanProperty(False)
    can_localize = BooleanProperty(True)

    def __init__(self, tag: PhotoTag, verbs: PhotoVerbs, **kwargs: Any) -> None:
        self.verbs = verbs
        super().__init__(**kwargs)
        self.label = tag.label
        self.decided = tag.verdict is not None
        self.rejected = tag.verdict is False
        self.yours = tag.verdict is True
        self.note = t("photo.rejected" if self.rejected else "photo.by_you" if self.yours else "photo.by_model")


class DetailRow(BoxLayout):
    """A line of details."""

    what = StringProperty("")
    value = StringProperty("")


class PhotoPanel(BoxLayout):
    """What is known about the photo."""

    side_by_side = BooleanProperty(True)
    can_localize = BooleanProperty(True)
    column = ObjectProperty(None)
    where = ObjectProperty(None)

    def __init__(self, app: Host, verbs: PhotoVerbs, **kwargs: Any) -> None:
        self.app, self.verbs = app, verbs
        self._tiles: list[Tile] = []
        super().__init__(can_localize=app.session.can_localize, **kwargs)

    def show(self, model: PhotoModel, changed: Part) -> None:
        """Show what has changed."""
        if changed in ("photo", "tags"):
            self._show_tags(model.tags)
        if changed in ("photo", "details"):
            self._show_details(model)
        if changed in ("photo", "similar"):
            self._show_similar(model)
        if changed in ("photo", "where"):
            if model.where is None and not self.where.focus:
                self.where.text = ""
            elif model.where is not None:
                self.where.text = model.asked_where

    def focus_where(self) -> None:
        """Put the cursor into the field of what to find."""
        self.where.focus = True

    def release(self) -> None:
        """Cancel wanted pictures."""
        for tile in self._tiles:
            tile.clear()

    def _open(self, tile: Tile) -> None:
        self.verbs.open_similar(tile.index)

    def _show_tags(self, tags: list[PhotoTag]) -> None:
        holder = self.ids.tags
        holder.clear_widgets()
        for tag in tags:
            holder.add_widget(TagRow(tag, self.verbs, can_localize=self.can_localize))
        if not tags:
            holder.add_widget(Factory.SecondaryLabel(text=t("photo.labels.none")))

    def _show_details(self, model: PhotoModel) -> None:
        holder = self.ids.details
        holder.clear_widgets()
        for what, value in describe(model.details) if model.details else ():
            holder.add_widget(DetailRow(what=what, value=value))
        if model.details is None and model.photo is not None:
            holder.add_widget(WrappedLabel(text=""))

    def _show_similar(self, model: PhotoModel) -> None:
        holder = self.ids.similar
        self.release()
        holder.clear_widgets()
        photos = self.app.actions.photos_of(model.similar)
        positions = {photo_id: position for position, photo_id in enumerate(model.similar)}
        for number, photo in enumerate(photos):
            if number >= len(self._tiles):
                self._tiles.append(Tile(self.app.pictures, self._open, lambda _: None))
            tile = self._tiles[number]
            tile.set(positions[photo.id], photo)
            holder.add_widget(tile)
        for tile in self._tiles:
            tile.size_hint = 1, 1
        self.ids.no_similar.text = "" if photos else t("photo.similar.none")
