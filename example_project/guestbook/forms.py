"""The two forms of the guestbook."""

from django import forms

from example_project.guestbook.models import Comment


class CommentForm(forms.ModelForm):
    """A visitor's entry."""

    class Meta:
        model = Comment
        fields = ["name", "message"]
        widgets = {
            "name": forms.TextInput(attrs={"autocomplete": "nickname"}),
            "message": forms.Textarea(attrs={"rows": 5}),
        }


class WebhookForm(forms.Form):
    """A new webhook's address. Whether it can be sent to is djwebhooks' decision."""

    url = forms.CharField(
        label="URL to tell of new comments",
        widget=forms.TextInput(attrs={"inputmode": "url", "autocomplete": "url", "placeholder": "https://example.com/hook"}),
    )
