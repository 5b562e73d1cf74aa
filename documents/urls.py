from django.urls import path

from documents import views

app_name = "documents"
urlpatterns = [
    path("versions/<int:pk>/", views.download, name="download"),
]
